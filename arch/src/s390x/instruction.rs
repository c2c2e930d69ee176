//! The instructions that a hypervisor leaves to the machine, by the parts that an interception tells: the first half word
//! (ipa), and two more (ipb). All of them are privileged. Formats are in the Principles of Operation, chapter 5, and for
//! DIAGNOSE in Linux' Documentation/virt/kvm/s390/s390-diag.rst.

/// The general registers.
pub type Registers = [u64; 16];

/// What the guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// SERVICE CALL: a command, and the address of its block.
    ServiceCall {
        /// The command word.
        command: u32,
        /// Where its block is.
        block: u64,
    },
    /// Of the channel subsystem.
    ChannelIo(ChannelIo),
    /// PERFORM TOPOLOGY FUNCTION.
    Topology {
        /// The function code.
        function: u64,
    },
    /// DIAGNOSE with this code, and its two registers.
    Diagnose {
        /// Which hypercall.
        code: u16,
        /// The first register.
        r1: u8,
        /// The second register.
        r3: u8,
    },
    /// SIGNAL PROCESSOR.
    Signal(Signal),
    /// None of them.
    Unknown,
}

/// What a CPU asks of another, or of itself (chapter 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The order.
    pub order: u8,
    /// Address of the CPU that is meant.
    pub cpu: u16,
    /// What comes with the order.
    pub parameter: u32,
    /// The register that takes a status.
    pub status: u8,
}

/// An instruction of the channel subsystem (chapter 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelIo {
    /// Its operation code.
    pub code: u16,
    /// What general register 1 has: for most of them, the subchannel.
    pub subchannel: u32,
    /// Address of its operand; of CHSC, that of the page.
    pub operand: u64,
}

const SERVC: u16 = 0xb220;
const CHSC: u16 = 0xb25f;
const PTF: u16 = 0xb9a2;

/// What the instruction is, with these registers.
pub fn decode(ipa: u16, ipb: u32, registers: &Registers) -> Instruction {
    // Four bits each.
    let field = |bits: u32, at: u32| (bits >> at & 15) as u8;
    let register = |number: u8| registers[usize::from(number & 15)];
    // RRE: the registers are in the last of the instruction's four bytes.
    let (first, second) = (register(field(ipb, 20)), register(field(ipb, 16)));
    let operand = match field(ipb, 28) {
        0 => 0,
        base => register(base),
    };
    let operand = operand.wrapping_add(u64::from(ipb >> 16 & 0xfff));
    // RS: they are in the second.
    let (r1, r3) = (field(ipa.into(), 4), field(ipa.into(), 0));
    let subchannel = registers[1] as u32;
    match (ipa, ipa >> 8) {
        (SERVC, _) => Instruction::ServiceCall {
            command: first as u32,
            block: second,
        },
        (CHSC, _) => Instruction::ChannelIo(ChannelIo {
            code: CHSC,
            subchannel,
            operand: first,
        }),
        (PTF, _) => Instruction::Topology { function: first },
        (0xb230..=0xb23c | 0xb274 | 0xb276, _) => Instruction::ChannelIo(ChannelIo {
            code: ipa,
            subchannel,
            operand,
        }),
        (_, 0x83) => Instruction::Diagnose {
            code: operand as u16,
            r1,
            r3,
        },
        (_, 0xae) => Instruction::Signal(Signal {
            order: operand as u8,
            cpu: register(r3) as u16,
            // In the odd one of a pair.
            parameter: register(r1 | 1) as u32,
            status: r1,
        }),
        _ => Instruction::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Register n has n << 32 | 0x1000 * n.
    fn registers() -> Registers {
        std::array::from_fn(|n| ((n as u64) << 32) | (0x1000 * n as u64))
    }

    #[test]
    fn registers_and_operands_are_where_the_formats_have_them() {
        let decode = |ipa, ipb| decode(ipa, ipb, &registers());
        assert_eq!(
            // servc %r2,%r3
            decode(0xb220, 0x0023_0000),
            Instruction::ServiceCall {
                command: 0x2000,
                block: 0x3_0000_3000
            }
        );
        let io = |code, operand| {
            Instruction::ChannelIo(ChannelIo {
                code,
                subchannel: 0x1000,
                operand,
            })
        };
        // ssch 0x123(%r4), and stsch 0xfff without a base
        assert_eq!(decode(0xb233, 0x4123_0000), io(0xb233, 0x4_0000_4123));
        assert_eq!(decode(0xb234, 0x0fff_0000), io(0xb234, 0xfff));
        // chsc %r5
        assert_eq!(decode(0xb25f, 0x0050_0000), io(0xb25f, 0x5_0000_5000));
        // ptf %r6
        let topology = Instruction::Topology {
            function: 0x6_0000_6000,
        };
        assert_eq!(decode(0xb9a2, 0x0060_0000), topology);
    }

    #[test]
    fn hypercalls_and_signals() {
        let decode = |ipa, ipb| decode(ipa, ipb, &registers());
        // diag %r2,%r4,0x500, and the code in a register
        let diagnose = |code| Instruction::Diagnose { code, r1: 2, r3: 4 };
        assert_eq!(decode(0x8324, 0x0500_0000), diagnose(0x500));
        assert_eq!(decode(0x8324, 0x1308_0000), diagnose(0x1308));
        // sigp %r1,%r2,6 and sigp %r4,%r2,13: the parameter is in the odd register
        let signal = |order, parameter, status| {
            Instruction::Signal(Signal {
                order,
                cpu: 0x2000,
                parameter,
                status,
            })
        };
        assert_eq!(decode(0xae12, 0x0006_0000), signal(6, 0x1000, 1));
        assert_eq!(decode(0xae42, 0x000d_0000), signal(13, 0x5000, 4));
    }

    #[test]
    fn what_is_no_business_of_the_machines() {
        for ipa in [0x0000, 0xb22f, 0xb23d, 0xb9a3, 0x8200, 0xffff] {
            assert_eq!(decode(ipa, 0, &registers()), Instruction::Unknown);
        }
    }

    proptest! {
        #[test]
        fn any_bits_are_some_instruction(ipa: u16, ipb: u32, registers: Registers) {
            if decode(ipa, ipb, &registers) != Instruction::Unknown {
                prop_assert!(matches!(ipa >> 8, 0x83 | 0xae | 0xb2 | 0xb9));
            }
        }
    }
}
