//! Bytes that look random and can be made again, and a digest to compare them by.
//!
//! Both go eight bytes at a step: a guest in the emulated host has few instructions to spare.

use std::io::{self, Read};

/// An endless stream of bytes, the same for the same seed (Steele, Lea and Flood's SplitMix64).
#[derive(Clone, Debug)]
pub struct Pattern {
    state: u64,
}

impl Pattern {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The first `length` bytes of the stream of this seed.
    #[must_use]
    pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut pattern = Self::new(seed);
        let mut bytes = vec![0; length.next_multiple_of(8)];
        pattern.fill(&mut bytes);
        bytes.truncate(length);
        bytes
    }

    /// Fills whole groups of eight bytes.
    fn fill(&mut self, buffer: &mut [u8]) {
        for group in buffer.chunks_exact_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            group.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
    }
}

/// Gives whole groups of eight bytes: a smaller buffer gets none.
impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let whole = buffer.len() / 8 * 8;
        self.fill(&mut buffer[..whole]);
        Ok(whole)
    }
}

/// A digest of bytes in their order: tells accidents apart, not attacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    hash: u64,
    length: u64,
}

impl Digest {
    /// The digest of all that is left in `source`.
    ///
    /// # Errors
    /// Those of `source`.
    pub fn of(mut source: impl Read) -> io::Result<Self> {
        let mut digest = Self::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let filled = fill(&mut source, &mut buffer)?;
            digest.add(&buffer[..filled]);
            if filled < buffer.len() {
                return Ok(digest);
            }
        }
    }

    /// Adds bytes; only the last group may have fewer than eight.
    fn add(&mut self, bytes: &[u8]) {
        for group in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..group.len()].copy_from_slice(group);
            let mixed = (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9fb2_1c65_1e98_df25);
            self.hash = mixed ^ (mixed >> 32);
        }
        self.length += bytes.len() as u64;
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{}", self.hash, self.length)
    }
}

/// Reads until the buffer is full or the source has ended; how many bytes it has.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_in_any_pieces() {
        let whole = Pattern::bytes(7, 1001);
        assert_eq!(whole.len(), 1001);
        let mut pieces = vec![0; 1000];
        let mut pattern = Pattern::new(7);
        pattern.read_exact(&mut pieces[..400]).unwrap();
        pattern.read_exact(&mut pieces[400..]).unwrap();
        assert_eq!(pieces, whole[..1000]);
        assert_ne!(Pattern::bytes(8, 1001), whole);
    }

    #[test]
    fn each_byte_its_place_and_the_length_count() {
        let digest = |bytes: &[u8]| Digest::of(bytes).unwrap();
        let bytes = Pattern::bytes(1, 5000);
        let whole = digest(&bytes);
        assert_eq!(whole, digest(&bytes.clone()));
        for at in [0, 8, 2501, 4999] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(digest(&other), whole, "{at}");
        }
        let mut swapped = bytes.clone();
        swapped.swap(0, 8);
        assert_ne!(digest(&swapped), whole);
        assert_ne!(digest(&[0; 3]), digest(&[0; 4]));
    }

    #[test]
    fn long_streams_have_a_digest_too() {
        let long = 3 << 20;
        let streamed = Digest::of(Pattern::new(3).take(long)).unwrap();
        assert_eq!(
            streamed,
            Digest::of(&Pattern::bytes(3, long as usize)[..]).unwrap()
        );
    }
}
