//! The commands of virtio over channel I/O (virtio 1.3, section 4.3.1.2). What they carry is big-endian, but for features
//! and the device's own configuration.

use super::indicators::{Adapter, CLASSIC, Indicators, is_classic};
use super::{StatusChange, VirtioCcw};
use crate::css::{Data, Progress, Refusal};
use crate::transport::{Area, status};

const WRITE_FEATURES: u8 = 0x11;
const READ_FEATURES: u8 = 0x12;
const SET_QUEUE: u8 = 0x13;
const WRITE_CONFIG: u8 = 0x21;
const READ_CONFIG: u8 = 0x22;
const WRITE_STATUS: u8 = 0x31;
const READ_QUEUE_CONFIG: u8 = 0x32;
const RESET: u8 = 0x33;
const SET_INDICATORS: u8 = 0x43;
const SET_CONFIG_INDICATORS: u8 = 0x53;
const READ_STATUS: u8 = 0x72;
const SET_ADAPTER_INDICATORS: u8 = 0x73;
const SET_REVISION: u8 = 0x83;

/// Revisions that a driver may choose; 0 is that of before virtio 1.
const REVISIONS: std::ops::RangeInclusive<u16> = 1..=2;
/// From this revision on the status can be read.
const WITH_READ_STATUS: u16 = 2;

/// A command's outcome: how many bytes of its data it had a use for.
type Used = Result<usize, Refusal>;

impl VirtioCcw {
    /// Executes a command; no reset is under way.
    pub(super) fn execute(&mut self, command: u8, data: &Data<'_>) -> Result<Progress, Refusal> {
        let revision = match (command, self.revision) {
            (SET_REVISION, None) => return self.set_revision(data).map(Progress::Done),
            (SET_REVISION, Some(_)) | (_, None) => return Err(Refusal::Reject),
            (_, Some(revision)) => revision,
        };
        let used = match command {
            RESET => return Ok(self.reset(0)),
            WRITE_STATUS => match data.get()? {
                [0] => return Ok(self.reset(1)),
                [status] => self.write_status(status)?,
            },
            READ_STATUS if revision >= WITH_READ_STATUS => {
                data.put(0, &[self.core.status()])?;
                1
            }
            READ_FEATURES => self.read_features(data)?,
            WRITE_FEATURES => self.write_features(data)?,
            READ_CONFIG => self.read_config(data)?,
            WRITE_CONFIG => self.write_config(data)?,
            READ_QUEUE_CONFIG => self.read_queue_config(data)?,
            SET_QUEUE => self.set_queue(data)?,
            SET_INDICATORS => self.set_classic_indicators(data)?,
            SET_CONFIG_INDICATORS => self.set_config_indicators(data)?,
            SET_ADAPTER_INDICATORS => self.set_adapter_indicators(data)?,
            _ => return Err(Refusal::Reject),
        };
        Ok(Progress::Done(used))
    }

    /// `virtio_rev_info`: revision and length of what comes behind it, which is nothing yet.
    fn set_revision(&mut self, data: &Data<'_>) -> Used {
        let [a, b, c, d] = data.get()?;
        let revision = u16::from_be_bytes([a, b]);
        if !REVISIONS.contains(&revision) || [c, d] != [0, 0] {
            return Err(Refusal::Reject);
        }
        self.revision = Some(revision);
        Ok(4)
    }

    /// The command is complete when the device has stopped.
    fn reset(&mut self, used: usize) -> Progress {
        let change = self.core.write_status(0);
        self.status_changed(change);
        if self.core.is_writable() {
            Progress::Done(used)
        } else {
            Progress::Later
        }
    }

    /// Rejected if the features are not acceptable: a driver of revision 1 cannot look whether they are.
    fn write_status(&mut self, value: u8) -> Used {
        let change = self.core.write_status(value);
        if let StatusChange::Ready(_) = change {
            self.status_changed(change);
        }
        let accepted = self.core.status();
        let refused = value & !accepted & (status::FEATURES_OK | status::DRIVER_OK);
        if refused == 0 {
            Ok(1)
        } else {
            Err(Refusal::Reject)
        }
    }

    /// `virtio_feature_desc`: 32 features, and which.
    fn read_features(&mut self, data: &Data<'_>) -> Used {
        let [_, _, _, _, half] = data.get()?;
        self.core.select_device_features(half.into());
        data.put(0, &self.core.device_features().to_le_bytes())?;
        Ok(5)
    }

    fn write_features(&mut self, data: &Data<'_>) -> Used {
        let [a, b, c, d, half] = data.get()?;
        self.core.select_driver_features(half.into());
        self.core
            .write_driver_features(u32::from_le_bytes([a, b, c, d]));
        Ok(5)
    }

    fn read_config(&self, data: &Data<'_>) -> Used {
        let mut bytes = vec![0; self.core.config().len()];
        self.core.config().read(0, &mut bytes);
        data.put_some(&bytes)
    }

    /// A driver writes all that is in front of what it changes, too, as it was.
    fn write_config(&mut self, data: &Data<'_>) -> Used {
        let mut bytes = vec![0; self.core.config().len().min(data.len())];
        data.read(&mut bytes)?;
        self.core.write_config(0, &bytes);
        Ok(bytes.len())
    }

    /// `vq_config_block`: which queue, and its largest size, 0 if there is no such queue.
    fn read_queue_config(&mut self, data: &Data<'_>) -> Used {
        let index = u16::from_be_bytes(data.get()?);
        self.core.select_queue(index);
        data.put(2, &self.core.queues().size().to_be_bytes())?;
        Ok(4)
    }

    /// `vq_info_block`: descriptors (8 bytes), unused (4), which queue (2), its size (2), driver area, device area (8 each).
    /// Without an address the queue is given up.
    fn set_queue(&mut self, data: &Data<'_>) -> Used {
        let block: [u8; 32] = data.get()?;
        let word = |at: usize| {
            let bytes = block.iter().skip(at).take(4);
            bytes.fold(0, |word, byte| word << 8 | u32::from(*byte))
        };
        let (index, size) = ((word(12) >> 16) as u16, word(12) as u16);
        self.core.select_queue(index);
        let queues = self.core.queue_setup().ok_or(Refusal::Reject)?;
        if index >= queues.count() {
            return Err(Refusal::Reject);
        }
        queues.give_up();
        if word(0) == 0 && word(4) == 0 {
            return Ok(block.len());
        }
        queues.set_size(size);
        let areas = [
            (Area::Descriptors, 0),
            (Area::Driver, 16),
            (Area::Device, 24),
        ];
        let mut taken = queues.size() == size;
        for (area, at) in areas {
            let (high, low) = (word(at), word(at + 4));
            queues.set_address(area, Some(low), Some(high));
            taken &= queues.address(area) == u64::from(high) << 32 | u64::from(low);
        }
        if !taken {
            queues.give_up();
            return Err(Refusal::Reject);
        }
        queues.enable();
        Ok(block.len())
    }

    fn set_classic_indicators(&mut self, data: &Data<'_>) -> Used {
        let address = self.indicators_at(data)?;
        let fits = self.core.queues().count() <= CLASSIC;
        if matches!(self.indicators, Indicators::Adapter(_)) || !fits {
            return Err(Refusal::Reject);
        }
        self.set_indicators(address.map_or(Indicators::None, Indicators::Classic));
        Ok(8)
    }

    fn set_config_indicators(&mut self, data: &Data<'_>) -> Used {
        self.config_indicators = self.indicators_at(data)?;
        self.tell_config();
        Ok(8)
    }

    /// `virtio_thinint_area`: summary indicator, indicators, bit of the first queue (8 bytes each), interruption class.
    /// Without an address the driver does not want to hear of the device any more.
    fn set_adapter_indicators(&mut self, data: &Data<'_>) -> Used {
        let area: [u8; 25] = data.get()?;
        if matches!(self.indicators, Indicators::Classic(_)) {
            return Err(Refusal::Reject);
        }
        if area.iter().skip(8).take(8).all(|byte| *byte == 0) {
            self.set_indicators(Indicators::None);
            return Ok(area.len());
        }
        let adapter = Adapter::new(&area, self.core.queues().count(), &self.memory);
        // The driver takes classic indicators if it is rejected.
        let adapter = adapter
            .filter(|_| self.reserve_routes())
            .ok_or(Refusal::Reject)?;
        self.set_indicators(Indicators::Adapter(adapter));
        Ok(area.len())
    }

    /// The address of classic indicators, unset if it is 0.
    fn indicators_at(&self, data: &Data<'_>) -> Result<Option<u64>, Refusal> {
        match u64::from_be_bytes(data.get()?) {
            0 => Ok(None),
            address if is_classic(&self.memory, address) => Ok(Some(address)),
            _ => Err(Refusal::Reject),
        }
    }
}
