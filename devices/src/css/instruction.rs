//! The I/O instructions (Principles of Operation, chapter 14), and their operands.

/// What a processor asks of the channel subsystem. TEST PENDING INTERRUPTION is KVM's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// STSCH: what a subchannel is.
    StoreSubchannel,
    /// MSCH: sets it up.
    ModifySubchannel,
    /// SSCH: starts a channel program.
    StartSubchannel,
    /// TSCH: fetches a status.
    TestSubchannel,
    /// HSCH: stops a channel program.
    HaltSubchannel,
    /// CSCH: forgets a channel program.
    ClearSubchannel,
    /// RSCH: has a suspended channel program go on. None ever is.
    ResumeSubchannel,
    /// XSCH: takes back a channel program that has not begun. All have.
    CancelSubchannel,
    /// STCRW: which subchannels have come and gone.
    StoreChannelReportWord,
    /// CHSC: calls the channel subsystem.
    ChannelSubsystemCall,
}

/// Why an instruction is not executed: a program interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// Its operand is not aligned.
    Specification,
    /// Its operand makes no sense.
    Operand,
    /// Its operand is not to be had; whoever found that has interrupted the program.
    Access(AccessRefused),
}

/// An operand cannot be accessed, and the program was told by the exception that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRefused;

/// Guest memory at the logical addresses of the processor that executes an instruction (KVM: `KVM_S390_MEM_OP` with
/// `KVM_S390_MEMOP_F_INJECT_EXCEPTION`).
pub trait Operands {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// When the program may not read there.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), AccessRefused>;

    /// Stores `bytes`, all or none.
    ///
    /// # Errors
    /// When the program may not write there.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), AccessRefused>;
}

impl Instruction {
    /// By the operation code; unset if it is none of these.
    pub fn from_opcode(code: u16) -> Option<Self> {
        Some(match code {
            0xb230 => Self::ClearSubchannel,
            0xb231 => Self::HaltSubchannel,
            0xb232 => Self::ModifySubchannel,
            0xb233 => Self::StartSubchannel,
            0xb234 => Self::StoreSubchannel,
            0xb235 => Self::TestSubchannel,
            0xb238 => Self::ResumeSubchannel,
            0xb239 => Self::StoreChannelReportWord,
            0xb25f => Self::ChannelSubsystemCall,
            0xb276 => Self::CancelSubchannel,
            _ => return None,
        })
    }

    /// What its operand's address has to be a multiple of; 1 if it has none.
    pub(super) fn alignment(self) -> u64 {
        match self {
            Self::ChannelSubsystemCall => 4096,
            Self::StoreSubchannel
            | Self::ModifySubchannel
            | Self::StartSubchannel
            | Self::TestSubchannel
            | Self::StoreChannelReportWord => 4,
            Self::HaltSubchannel
            | Self::ClearSubchannel
            | Self::ResumeSubchannel
            | Self::CancelSubchannel => 1,
        }
    }
}

impl Exception {
    /// The program interruption code; unset if the program was interrupted already.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::Specification => Some(0x0006),
            Self::Operand => Some(0x0015),
            Self::Access(AccessRefused) => None,
        }
    }
}

impl From<AccessRefused> for Exception {
    fn from(refused: AccessRefused) -> Self {
        Self::Access(refused)
    }
}
