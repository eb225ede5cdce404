//! Epochs: stretches of blocks certified by one committee, and who leads a view of them.
//!
//! ```text
//! epoch of a height  = height / epoch_blocks                       epoch_blocks: a parameter, fixed at genesis
//! last height        = (epoch + 1) · epoch_blocks − 1              its header names the committee of the next epoch
//! freeze height      = epoch · epoch_blocks + epoch_blocks / 2     what governance decided by then holds from the next
//! leader of a view   = (epoch + view) mod committee size           place among the ascending keys
//! ```
//!
//! Pure arithmetic: which committee an epoch has is told by headers, not here. Every function asks for `epoch_blocks`
//! as checked parameters have it, 2 or more, and panics when it is 0.

use crate::units::Height;

/// The epoch that `height` lies in.
#[must_use]
pub const fn epoch_of(height: Height, epoch_blocks: u64) -> u64 {
    height.0 / epoch_blocks
}

/// The last height of `epoch`; the largest height for epochs that end beyond it.
#[must_use]
pub const fn last_of(epoch: u64, epoch_blocks: u64) -> Height {
    match epoch.checked_add(1) {
        Some(next) => match next.checked_mul(epoch_blocks) {
            Some(first_of_next) => Height(first_of_next - 1),
            None => Height(u64::MAX),
        },
        None => Height(u64::MAX),
    }
}

/// The height of `epoch` at which the committee of the next one is fixed; the largest height beyond the last.
#[must_use]
pub const fn freeze_of(epoch: u64, epoch_blocks: u64) -> Height {
    Height(epoch.saturating_mul(epoch_blocks).saturating_add(epoch_blocks / 2))
}

/// Whether `height` is the last of its epoch.
#[must_use]
pub const fn is_last(height: Height, epoch_blocks: u64) -> bool {
    height.0 % epoch_blocks == epoch_blocks - 1
}

/// Who proposes in `view` of `epoch`: a place among the committee's ascending keys.
///
/// This is the consensus library's round robin with one view a term, so that the state can count who let a view pass.
/// Panics for an empty committee, which no epoch has.
#[must_use]
pub const fn leader(epoch: u64, view: u64, committee_len: usize) -> usize {
    // The remainder is below a usize, so it fits into one.
    #[allow(clippy::cast_possible_truncation)]
    let place = (epoch.wrapping_add(view) % committee_len as u64) as usize;
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn boundaries_of_epochs_of_ten_blocks() {
        for (height, epoch, last) in [(0, 0, false), (8, 0, false), (9, 0, true), (10, 1, false), (19, 1, true)] {
            assert_eq!(epoch_of(Height(height), 10), epoch, "height {height}");
            assert_eq!(is_last(Height(height), 10), last, "height {height}");
        }
        assert_eq!((last_of(0, 10), last_of(1, 10)), (Height(9), Height(19)));
        assert_eq!((freeze_of(0, 10), freeze_of(3, 10), freeze_of(1, 3)), (Height(5), Height(35), Height(4)));
    }

    #[test]
    fn leaders_take_turns_and_begin_one_later_in_each_epoch() {
        assert_eq!((1..=5).map(|view| leader(0, view, 4)).collect::<Vec<_>>(), [1, 2, 3, 0, 1]);
        assert_eq!(leader(1, 1, 4), 2);
        assert_eq!(leader(u64::MAX, 1, 4), 0, "the sum wraps");
    }

    proptest! {
        #[test]
        fn every_epoch_ends_where_the_next_begins(epoch in 0..u64::MAX / 2_000_000, blocks in 2u64..=1_000_000) {
            let last = last_of(epoch, blocks);
            prop_assert!(is_last(last, blocks) && !is_last(last.next(), blocks));
            prop_assert_eq!(epoch_of(last, blocks), epoch);
            prop_assert_eq!(epoch_of(last.next(), blocks), epoch + 1);
            let freeze = freeze_of(epoch, blocks);
            prop_assert_eq!(epoch_of(freeze, blocks), epoch);
            prop_assert!(freeze <= last);
        }

        #[test]
        fn no_number_panics(height in any::<u64>(), epoch in any::<u64>(), view in any::<u64>(), blocks in 1u64.., n in 1usize..) {
            let _ = (epoch_of(Height(height), blocks), is_last(Height(height), blocks), last_of(epoch, blocks), freeze_of(epoch, blocks));
            prop_assert!(leader(epoch, view, n) < n);
        }
    }
}
