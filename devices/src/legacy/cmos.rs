//! The real-time clock (MC146818), from which a kernel takes the time when it boots.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{MachineEvent, PortDevice};

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY_OF_WEEK: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;

/// The usual divider and rate; no update is ever in progress (bit 7).
const STATUS_A_VALUE: u8 = 0x26;
/// 24 hours, and by the lack of bit 2 decimal digits (BCD).
const STATUS_B_VALUE: u8 = 0x02;
/// The time is valid.
const STATUS_D_VALUE: u8 = 0x80;

/// Ports 0x70 (which register; bit 7 masks NMIs) and 0x71 (the register). It shows the host's time
/// in UTC and cannot be set; the memory beside the clock is all zeros, which is also the shutdown
/// status of a normal boot.
#[derive(Debug)]
pub struct Cmos {
    index: u8,
    /// Taken when the seconds are read: the rest belongs to the same second.
    time: CivilTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CivilTime {
    year: u64,
    month: u64,
    day: u64,
    /// Sunday is 1.
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Cmos {
    /// The first port, and how many.
    pub const PORTS: (u16, u16) = (0x70, 2);

    /// A clock that shows the host's time.
    pub fn new() -> Self {
        Self {
            index: 0,
            time: CivilTime::now(),
        }
    }

    fn register(&mut self) -> u8 {
        if matches!(self.index, SECONDS | STATUS_A) {
            self.time = CivilTime::now();
        }
        let time = &self.time;
        match self.index {
            SECONDS => bcd(time.second),
            MINUTES => bcd(time.minute),
            HOURS => bcd(time.hour),
            DAY_OF_WEEK => bcd(time.weekday),
            DAY => bcd(time.day),
            MONTH => bcd(time.month),
            YEAR => bcd(time.year % 100),
            CENTURY => bcd(time.year / 100),
            STATUS_A => STATUS_A_VALUE,
            STATUS_B => STATUS_B_VALUE,
            STATUS_D => STATUS_D_VALUE,
            _ => 0,
        }
    }
}

impl Default for Cmos {
    fn default() -> Self {
        Self::new()
    }
}

impl PortDevice for Cmos {
    fn read(&mut self, offset: u16) -> u8 {
        if offset == 0 { 0xff } else { self.register() }
    }

    fn write(&mut self, offset: u16, value: u8) -> Option<MachineEvent> {
        if offset == 0 {
            self.index = value & 0x7f;
        }
        None
    }
}

impl CivilTime {
    fn now() -> Self {
        // A host clock before 1970 shows as 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::from_unix(since.map_or(0, |since| since.as_secs()))
    }

    /// The date by counting in eras of 400 years that start on 1 March, so that the leap day is
    /// the last of its year.
    fn from_unix(seconds: u64) -> Self {
        const DAYS_OF_ERA: u64 = 146_097;
        let days = seconds / 86_400;
        // 1 March 0000 was 719,468 days before 1 January 1970.
        let shifted = days + 719_468;
        let day_of_era = shifted % DAYS_OF_ERA;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Five months from March have 153 days.
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        Self {
            year: shifted / DAYS_OF_ERA * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            // 1 January 1970 was a Thursday.
            weekday: (days + 4) % 7 + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

/// Two decimal digits.
fn bcd(value: u64) -> u8 {
    (value / 10 % 10 * 16 + value % 10) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(seconds: u64) -> (u64, u64, u64, u64) {
        let time = CivilTime::from_unix(seconds);
        (time.year, time.month, time.day, time.weekday)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As told by `date -u -d @N "+%Y %m %d %u"`.
        assert_eq!(date(0), (1970, 1, 1, 5));
        assert_eq!(date(951_782_400), (2000, 2, 29, 3));
        assert_eq!(date(1_709_164_800), (2024, 2, 29, 5));
        assert_eq!(date(1_735_689_599), (2024, 12, 31, 3));
        assert_eq!(date(4_107_542_400), (2100, 3, 1, 2));
    }

    #[test]
    fn registers_show_decimal_digits() {
        let mut cmos = Cmos::new();
        let mut read = |index: u8| {
            cmos.write(0, index | 0x80);
            cmos.read(1)
        };
        let before = CivilTime::now();
        let second = read(SECONDS);
        let after = CivilTime::now();
        let shown = [CENTURY, YEAR, MONTH, DAY, DAY_OF_WEEK, HOURS, MINUTES].map(&mut read);
        let digits = |time: &CivilTime| {
            [
                time.year / 100,
                time.year,
                time.month,
                time.day,
                time.weekday,
                time.hour,
                time.minute,
            ]
            .map(bcd)
        };
        assert!(
            [before, after]
                .iter()
                .any(|t| { (digits(t), bcd(t.second)) == (shown, second) })
        );
        assert_eq!(read(STATUS_A) & 0x80, 0);
        assert_eq!(read(STATUS_B), 2);
        assert_eq!(read(0x0f), 0);
        assert_eq!(bcd(59), 0x59);
    }
}
