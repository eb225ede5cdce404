//! Newtypes for the numbers of the protocol, so that an offset is never passed where a height is meant.
//!
//! They carry no arithmetic of their own beyond [`next`](Height::next); whoever computes with one says so by `.0`.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one that follows; stays at the largest value.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

unit!(
    /// Height of a block; genesis is 0.
    Height, u64
);
unit!(
    /// Offset of a record within a Kafka partition, 0 to 2^63 − 1.
    Offset, u64
);
unit!(
    /// Number of a Kafka partition, 0 to 2^31 − 1.
    Partition, u32
);
unit!(
    /// Place of a leaf within a tree, counted from 0.
    LeafIndex, u64
);
unit!(
    /// Number of leaves of a tree.
    TreeSize, u64
);
unit!(
    /// Sequence number of a statement, per signer, strictly increasing.
    Sequence, u64
);
