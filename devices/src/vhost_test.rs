use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Mutex;

use ::vhost::vhost_kern::vhost_binding as numbers;
use ::vhost::{Result, VhostUserDirtyLogRegion};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::config_space::ConfigSpace;
use crate::dev::{net, rng};
use crate::testing::{DriverQueue, FakeWatch, memory};

/// What the kernel was asked for, in order, by device.
pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

pub(crate) struct FakeKernel {
    device: usize,
    asked: Asked,
    refuse: Option<&'static str>,
}

impl FakeKernel {
    /// One that refuses nothing.
    pub(crate) fn new(device: usize, asked: &Asked) -> Self {
        Self {
            device,
            asked: Arc::clone(asked),
            refuse: None,
        }
    }

    fn ask(&self, what: &str) -> Result<()> {
        self.asked
            .lock()
            .unwrap()
            .push(format!("{}: {what}", self.device));
        if self.refuse.is_some_and(|refused| what.starts_with(refused)) {
            return Err(::vhost::Error::InvalidOperation);
        }
        Ok(())
    }
}

impl VhostBackend for FakeKernel {
    fn get_features(&self) -> Result<u64> {
        Ok(0b0110)
    }
    fn set_features(&self, features: u64) -> Result<()> {
        self.ask(&format!("features {features:#b}"))
    }
    fn set_owner(&self) -> Result<()> {
        self.ask("owner")
    }
    fn reset_owner(&self) -> Result<()> {
        unreachable!()
    }
    fn set_mem_table(&self, regions: &[VhostUserMemoryRegionInfo]) -> Result<()> {
        let region = regions[0];
        assert_eq!(region.guest_phys_addr, 0);
        assert_ne!(region.userspace_addr, 0);
        self.ask(&format!(
            "memory {} {:#x}",
            regions.len(),
            region.memory_size
        ))
    }
    fn set_log_base(&self, _: u64, _: Option<VhostUserDirtyLogRegion>) -> Result<()> {
        unreachable!()
    }
    fn set_log_fd(&self, _: RawFd) -> Result<()> {
        unreachable!()
    }
    fn set_vring_num(&self, ring: usize, size: u16) -> Result<()> {
        self.ask(&format!("num {ring} {size}"))
    }
    fn set_vring_addr(&self, ring: usize, config: &VringConfigData) -> Result<()> {
        self.ask(&format!("addr {ring} {:#x}", config.desc_table_addr))
    }
    fn set_vring_base(&self, ring: usize, base: u16) -> Result<()> {
        self.ask(&format!("base {ring} {base}"))
    }
    fn get_vring_base(&self, _: usize) -> Result<u32> {
        unreachable!()
    }
    fn set_vring_call(&self, ring: usize, _: &EventFd) -> Result<()> {
        self.ask(&format!("call {ring}"))
    }
    fn set_vring_kick(&self, ring: usize, _: &EventFd) -> Result<()> {
        self.ask(&format!("kick {ring}"))
    }
    fn set_vring_err(&self, _: usize, _: &EventFd) -> Result<()> {
        unreachable!()
    }
}

/// Two devices with two rings each, and a queue that stays here.
struct FakeBackend {
    asked: Asked,
    refuse: Option<&'static str>,
    config: Arc<ConfigSpace>,
}

impl FakeBackend {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

impl Backend for FakeBackend {
    type Kernel = FakeKernel;

    fn traits(&self) -> Traits {
        Traits {
            kind: &rng::KIND,
            features: 0,
            queue_sizes: vec![8; 5],
            config: Arc::clone(&self.config),
            own_loop: false,
        }
    }
    fn kernel(&self, device: usize, _: &Arc<Memory>) -> Option<FakeKernel> {
        let kernel = FakeKernel::new(device, &self.asked);
        Some(FakeKernel {
            refuse: self.refuse,
            ..kernel
        })
    }
    fn start(&mut self, features: u64) -> std::result::Result<Vec<Range<usize>>, DeviceError> {
        self.note(format!("start {features:#b}"));
        Ok(vec![0..2, 2..4])
    }
    fn run(&mut self, device: usize, rings: &[usize]) -> std::result::Result<(), DeviceError> {
        self.note(format!("{device}: run {rings:?}"));
        Ok(())
    }
    fn halt(&mut self, device: usize) {
        self.note(format!("{device}: halt"));
    }
    fn kicked(&mut self, index: usize, _: &mut VirtQueue) -> std::result::Result<(), DeviceError> {
        self.note(format!("kicked {index}"));
        Ok(())
    }
    fn stop(&mut self) {
        self.note("stop".to_owned());
    }
}

struct Bench {
    device: Vhost<FakeBackend>,
    asked: Asked,
    queues: Vec<VirtQueue>,
}

impl Bench {
    fn new(refuse: Option<&'static str>) -> Self {
        let asked = Asked::default();
        let device = Vhost::new(FakeBackend {
            asked: Arc::clone(&asked),
            refuse,
            config: Arc::new(ConfigSpace::new(Vec::new()).unwrap()),
        });
        Self {
            device,
            asked,
            queues: Vec::new(),
        }
    }

    /// Starts with these of the five queues enabled.
    fn start(&mut self, enabled: &[u64]) -> std::result::Result<(), DeviceError> {
        let memory = memory(1 << 20);
        let queue = |index| {
            let driver = DriverQueue::new(&memory, index * 0x1000, 8);
            if enabled.contains(&index) {
                return driver.device_end(true);
            }
            let event = || EventFd::new(0).unwrap();
            let ring = virtio_queue::Queue::new(8).unwrap();
            VirtQueue::new(ring, Arc::clone(&memory), event(), event())
        };
        let mut activation = Activation {
            memory: Arc::clone(&memory),
            features: 0b1100,
            queues: (0..5).map(queue).collect(),
        };
        let started = self
            .device
            .start(&mut activation, &mut FakeWatch::default());
        self.queues = activation.queues;
        started
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn ring(device: usize, ring: usize, queue: u64) -> Vec<String> {
    [
        format!("num {ring} 8"),
        format!("base {ring} 0"),
        format!("addr {ring} {:#x}", queue * 0x1000),
        format!("call {ring}"),
        format!("kick {ring}"),
    ]
    .map(|what| format!("{device}: {what}"))
    .to_vec()
}

#[test]
fn enabled_queues_are_handed_over_in_order_and_given_up() {
    let mut bench = Bench::new(None);
    bench.start(&[0, 1, 3, 4]).unwrap();
    let texts = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
    let expected = [
        texts(&[
            "start 0b1100",
            "0: owner",
            "0: features 0b100",
            "0: memory 1 0x100000",
        ]),
        ring(0, 0, 0),
        ring(0, 1, 1),
        texts(&[
            "0: run [0, 1]",
            "1: owner",
            "1: features 0b100",
            "1: memory 1 0x100000",
        ]),
        ring(1, 1, 3),
        texts(&["1: run [1]"]),
    ];
    assert_eq!(bench.asked(), expected.concat());
    // The fifth stays, under its name.
    assert_eq!(bench.queues.len(), 1);
    let watch = &mut FakeWatch::default();
    bench.device.kicked(0, &mut bench.queues, watch).unwrap();
    assert_eq!(bench.asked(), ["kicked 4"]);
    bench.device.stop();
    assert_eq!(bench.asked(), ["0: halt", "1: halt", "stop"]);
    // The owner is one for good.
    bench.start(&[0]).unwrap();
    let asked = bench.asked();
    assert!(
        asked.iter().all(|what| !what.contains("owner")),
        "{asked:?}"
    );
    assert!(asked.contains(&"0: run [0]".to_owned()));
    assert!(asked.contains(&"1: run []".to_owned()));
}

#[test]
fn a_start_that_fails_is_undone() {
    for (refused, halted) in [("owner", 0), ("memory", 0), ("kick 1", 0), ("addr 0", 0)] {
        let mut bench = Bench::new(Some(refused));
        let error = bench.start(&[0, 1, 2, 3]).unwrap_err().to_string();
        assert!(error.contains("vhost"), "{error}");
        bench.asked();
        bench.device.stop();
        assert_eq!(bench.asked().len(), halted + 1);
    }
    // It is the second device that fails.
    let mut bench = Bench::new(Some("num 1"));
    bench.start(&[0, 2, 3]).unwrap_err();
    bench.asked();
    bench.device.stop();
    assert_eq!(bench.asked(), ["0: halt", "stop"]);
}

#[test]
fn requests_are_those_of_the_library() {
    let library = [
        numbers::VHOST_GET_FEATURES(),
        numbers::VHOST_SET_FEATURES(),
        numbers::VHOST_SET_OWNER(),
        numbers::VHOST_SET_MEM_TABLE(),
        numbers::VHOST_SET_VRING_NUM(),
        numbers::VHOST_SET_VRING_ADDR(),
        numbers::VHOST_SET_VRING_BASE(),
        numbers::VHOST_SET_VRING_KICK(),
        numbers::VHOST_SET_VRING_CALL(),
    ];
    assert_eq!(REQUESTS, library);
    let requests = net::KIND.requests.concat();
    assert!(REQUESTS.iter().all(|ours| requests.contains(ours)));
    assert!(requests.contains(&numbers::VHOST_NET_SET_BACKEND()));
    let distinct: BTreeMap<_, _> = requests.iter().map(|r| (r, ())).collect();
    assert_eq!(distinct.len(), requests.len());
}

#[test]
fn a_kernel_that_lacks_a_feature_is_refused_by_name() {
    let all = 1 << 32 | 1 << 28 | 1 << 29 | 1 << 15;
    require(all, 1 << 15, "MRG_RXBUF").unwrap();
    for (bit, name) in [
        (32, "VERSION_1"),
        (28, "INDIRECT_DESC"),
        (29, "EVENT_IDX"),
        (15, "MRG_RXBUF"),
    ] {
        let error = require(all & !(1 << bit), 1 << 15, "MRG_RXBUF").unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}
