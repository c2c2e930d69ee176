//! Structures as the guest has them in its memory: big-endian, without gaps.

/// A part of a block.
pub(super) trait Field: Copy {
    /// Its bytes.
    const SIZE: usize;
    /// Takes it from the beginning of `rest`, which it moves on. Never called with less than there is of it.
    fn take(rest: &mut &[u8]) -> Self;
    /// Puts it at the end of `bytes`.
    fn put(self, bytes: &mut Vec<u8>);
}

macro_rules! number {
    ($($type:ty)*) => {$(
        impl Field for $type {
            const SIZE: usize = size_of::<Self>();
            fn take(rest: &mut &[u8]) -> Self {
                Self::from_be_bytes(Field::take(rest))
            }
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_be_bytes());
            }
        }
    )*};
}
number!(u16 u32 u64);

impl Field for u8 {
    const SIZE: usize = 1;
    fn take(rest: &mut &[u8]) -> Self {
        let [byte] = Field::take(rest);
        byte
    }
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.push(self);
    }
}

impl<const N: usize> Field for [u8; N] {
    const SIZE: usize = N;
    fn take(rest: &mut &[u8]) -> Self {
        let mut field = [0; N];
        if let Some((taken, behind)) = rest.split_at_checked(N) {
            field.copy_from_slice(taken);
            *rest = behind;
        }
        field
    }
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend(self);
    }
}

/// Declares a block by its fields in their order.
macro_rules! block {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// Its bytes in guest memory.
            pub const SIZE: usize = 0 $(+ <$type as $crate::css::block::Field>::SIZE)*;

            /// From guest memory.
            pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
                $crate::css::block::Field::take(&mut &bytes[..])
            }

            /// As it is in guest memory.
            pub fn to_bytes(self) -> [u8; Self::SIZE] {
                let mut bytes = Vec::with_capacity(Self::SIZE);
                $crate::css::block::Field::put(self, &mut bytes);
                let mut array = [0; Self::SIZE];
                array.copy_from_slice(&bytes);
                array
            }
        }

        impl $crate::css::block::Field for $name {
            const SIZE: usize = Self::SIZE;
            fn take(rest: &mut &[u8]) -> Self {
                Self {
                    $($field: $crate::css::block::Field::take(rest),)*
                }
            }
            fn put(self, bytes: &mut Vec<u8>) {
                $($crate::css::block::Field::put(self.$field, bytes);)*
            }
        }
    };
}
pub(super) use block;
