//! A subchannel with its device: functions and status (Principles of Operation, chapters 15 and 16).
//!
//! What an instruction answers is its condition code: 0 done, 1 status pending, 2 busy, 3 not operational.

use super::program::{End, Program, SENSE_BYTES, Sense};
use super::{
    ChannelDevice, IoInterrupt, Irb, Orb, Pmcw, Reaction, Schib, Scsw, SubchannelId,
    characteristics, device_status, pmcw_flags, scsw_control, scsw_flags, subchannel_status,
};
use crate::Memory;

/// The only path to a device.
const PATH: u8 = 0x80;
/// Extended status: nothing is known of the storage that a check was for.
const NO_STORAGE_ADDRESS: u32 = 0x0080_0000;
/// Extended report: sense data are there, and how many bytes.
const SENSE_STORED: u32 = 0x0100_0000 | (SENSE_BYTES as u32) << 16;

/// A subchannel.
pub(super) struct Subchannel {
    pub(super) device: Box<dyn ChannelDevice>,
    schib: Schib,
    sense: Sense,
    /// Waits for the device.
    program: Option<Program>,
}

impl Subchannel {
    /// One that the guest has to enable, with the number of its device.
    pub(super) fn new(device: Box<dyn ChannelDevice>, number: u8) -> Self {
        let schib = Schib {
            pmcw: Pmcw {
                flags: pmcw_flags::DEVICE_VALID,
                device: number.into(),
                installed: PATH,
                operational: 0xff,
                available: PATH,
                ..Pmcw::default()
            },
            ..Schib::default()
        };
        Self {
            device,
            schib,
            sense: [0; SENSE_BYTES],
            program: None,
        }
    }

    /// Whether there is a status for the guest to fetch.
    pub(super) fn is_pending(&self) -> bool {
        self.schib.scsw.control & scsw_control::STATUS_PENDING != 0
    }

    /// The interruption that tells the guest of the status.
    pub(super) fn interrupt(&self) -> IoInterrupt {
        let Pmcw {
            parameter, device, ..
        } = self.schib.pmcw;
        IoInterrupt {
            subchannel_id: (SubchannelId::of(device).word() >> 16) as u16,
            number: device,
            parameter,
            word: u32::from(self.schib.pmcw.interruption_class()) << 27,
        }
    }

    /// STSCH.
    pub(super) fn schib(&self) -> Schib {
        self.schib
    }

    /// MSCH: takes what the guest may set.
    pub(super) fn modify(&mut self, new: &Schib) -> u8 {
        if self.is_pending() {
            return 1;
        }
        if self.schib.scsw.control & scsw_control::FUNCTIONS != 0 {
            return 2;
        }
        let was_enabled = self.is_enabled();
        let Schib { pmcw: to, .. } = &mut self.schib;
        to.parameter = new.pmcw.parameter;
        let mask = pmcw_flags::CHANGEABLE;
        to.flags = to.flags & !mask | new.pmcw.flags & mask;
        to.logical_paths = new.pmcw.logical_paths;
        to.operational = new.pmcw.operational;
        to.measurement_index = new.pmcw.measurement_index;
        let mask = characteristics::CHANGEABLE;
        to.characteristics = to.characteristics & !mask | new.pmcw.characteristics & mask;
        self.schib.measurement_block = new.measurement_block;
        if was_enabled && !self.is_enabled() {
            self.device.disabled();
        }
        0
    }

    /// SSCH.
    pub(super) fn start(&mut self, orb: &Orb, memory: &Memory) -> u8 {
        if !self.is_enabled() {
            return 3;
        }
        if self.is_pending() {
            return 1;
        }
        if self.schib.scsw.control & scsw_control::FUNCTIONS != 0 {
            return 2;
        }
        self.schib.pmcw.parameter = orb.parameter;
        self.schib.scsw = Scsw {
            flags: orb.control & scsw_flags::REQUESTED,
            control: scsw_control::START | scsw_control::ACTIVE,
            ..Scsw::default()
        };
        if orb.paths & PATH == 0 {
            let Scsw { flags, control, .. } = &mut self.schib.scsw;
            *flags |= scsw_flags::NO_PATH;
            *control = scsw_control::START | scsw_control::ALERT | scsw_control::STATUS_PENDING;
            return 0;
        }
        self.schib.pmcw.last_used = PATH;
        self.program = Some(Program::new(orb));
        self.go_on(memory);
        0
    }

    /// Executes the program until it ends, or waits for the device.
    fn go_on(&mut self, memory: &Memory) {
        let Some(program) = &mut self.program else {
            return;
        };
        if let Some(end) = program.run(&mut *self.device, &mut self.sense, memory) {
            self.program = None;
            self.ended(end);
        }
    }

    fn ended(&mut self, end: End) {
        let scsw = &mut self.schib.scsw;
        scsw.program = end.program;
        scsw.device_status = end.device_status;
        scsw.subchannel_status = end.subchannel_status;
        scsw.count = end.count;
        scsw.control = scsw_control::START | scsw_control::ENDED;
        let controlled = subchannel_status::PROGRAM_CONTROLLED;
        if end.subchannel_status & controlled != 0 {
            scsw.control |= scsw_control::INTERMEDIATE;
        }
        let check = end.device_status & device_status::UNIT_CHECK != 0;
        if check || end.subchannel_status & !controlled != 0 {
            scsw.control |= scsw_control::ALERT;
        }
    }

    /// HSCH. If no program waits, the device has nothing to stop.
    pub(super) fn halt(&mut self) -> u8 {
        if !self.is_enabled() {
            return 3;
        }
        if self.is_pending() {
            return 1;
        }
        self.program = None;
        let scsw = &mut self.schib.scsw;
        scsw.control &= scsw_control::START;
        scsw.control |= scsw_control::HALT | scsw_control::STATUS_PENDING;
        scsw.device_status = device_status::DEVICE_END;
        scsw.subchannel_status = 0;
        0
    }

    /// CSCH.
    pub(super) fn clear(&mut self) -> u8 {
        if !self.is_enabled() {
            return 3;
        }
        self.program = None;
        self.schib.pmcw.operational = 0xff;
        self.schib.pmcw.last_used = 0;
        self.schib.scsw = Scsw {
            control: scsw_control::CLEAR | scsw_control::STATUS_PENDING,
            ..Scsw::default()
        };
        0
    }

    /// RSCH and XSCH: no program is suspended, and none has yet to begin.
    pub(super) fn not_applicable(&self) -> u8 {
        match (self.is_enabled(), self.is_pending()) {
            (false, _) => 3,
            (true, true) => 1,
            (true, false) => 2,
        }
    }

    /// TSCH: what it stores, and its condition code; none if the subchannel is not operational.
    pub(super) fn status(&self) -> Option<(Irb, u8)> {
        if !self.is_enabled() {
            return None;
        }
        let mut irb = Irb {
            scsw: self.schib.scsw,
            ..Irb::default()
        };
        if !self.is_pending() {
            return Some((irb, 1));
        }
        let mut extended = [NO_STORAGE_ADDRESS, 0];
        if self.has_sense() {
            irb.scsw.flags |= scsw_flags::EXTENDED_STATUS | scsw_flags::EXTENDED_CONTROL;
            irb.extended_control = self.sense;
            extended[1] = SENSE_STORED;
        }
        let bytes = extended.iter().flat_map(|word| word.to_be_bytes());
        for (to, from) in irb.extended_status.iter_mut().zip(bytes) {
            *to = from;
        }
        Some((irb, 0))
    }

    /// The guest has fetched the status.
    pub(super) fn tested(&mut self) {
        if !self.is_pending() {
            return;
        }
        if self.has_sense() {
            self.sense.fill(0);
        }
        self.schib.scsw.control = 0;
        self.schib.scsw.flags = 0;
    }

    /// An eventfd of the device's was signalled.
    pub(super) fn signalled(&mut self, name: u32, memory: &Memory) {
        match self.device.signalled(name) {
            Reaction::None => {}
            Reaction::Ready => self.go_on(memory),
            Reaction::Attention => self.attention(),
        }
    }

    /// Makes the guest look at the device, unless it will do so anyway.
    fn attention(&mut self) {
        let scsw = &mut self.schib.scsw;
        let idle = scsw.control & (scsw_control::FUNCTIONS | scsw_control::STATUS_PENDING) == 0;
        if idle && self.schib.pmcw.flags & pmcw_flags::ENABLED != 0 {
            *scsw = Scsw {
                control: scsw_control::ALERT | scsw_control::STATUS_PENDING,
                ..Scsw::default()
            };
        }
    }

    fn is_enabled(&self) -> bool {
        self.schib.pmcw.flags & pmcw_flags::ENABLED != 0
    }

    /// Whether sense data are to come with the status.
    fn has_sense(&self) -> bool {
        self.schib.scsw.device_status & device_status::UNIT_CHECK != 0
            && self.schib.pmcw.characteristics & characteristics::CONCURRENT_SENSE != 0
    }
}
