//! I1, contiguity, as predicates on the only path by which an anchor enters the state.
//!
//! Per partition, anchored offsets never overlap, never go back, and leave nothing out but declared gaps. Each
//! predicate is one comparison; why it is that one stands beside it. Ingest is not trusted to keep them.

use cairn_proof::Digest;
use cairn_proof::statement::Anchor;

use crate::entry::{Head, StreamEntry};
use crate::refusal::{Refusal, RefusalCode};

/// The anchor begins exactly where the last one ended.
///
/// `==` and not `>=`: an anchor that begins later would leave offsets out without declaring them as a gap.
///
/// # Errors
/// [`RefusalCode::Overlap`] when it begins earlier, [`RefusalCode::Gap`] when it begins later.
pub fn begins_at_head(head: &Head, anchor: &Anchor) -> Result<(), Refusal> {
    let place = format!("{} partition {}", anchor.stream, anchor.partition);
    if anchor.first < head.next {
        let message = format!(
            "{place}: offsets {} to {} overlap what is anchored; the head is at {}: resume there",
            anchor.first, anchor.last, head.next
        );
        return Err(Refusal::new(RefusalCode::Overlap, message));
    }
    if anchor.first > head.next {
        let message = format!(
            "{place}: offsets {} to {} are left out before {}; begin at {} and declare what is missing as a gap",
            head.next,
            anchor.first.0 - 1,
            anchor.first,
            head.next
        );
        return Err(Refusal::new(RefusalCode::Gap, message));
    }
    Ok(())
}

/// The anchor names the partition's last anchor.
///
/// With [`begins_at_head`] alone two workers could continue different batches that end at the same offset.
///
/// # Errors
/// [`RefusalCode::Previous`] when it names another.
pub fn follows_head(head: &Head, anchor: &Anchor) -> Result<(), Refusal> {
    if anchor.previous == head.anchor {
        return Ok(());
    }
    let head_name = if head.anchor == Digest::ZERO { "none yet".to_owned() } else { head.anchor.to_string() };
    let message = format!(
        "{} partition {}: the previous anchor is {head_name}, the statement names {}",
        anchor.stream, anchor.partition, anchor.previous
    );
    Err(Refusal::new(RefusalCode::Previous, message))
}

/// Gaps are declared only where the stream's policy allows them.
///
/// # Errors
/// [`RefusalCode::Gap`] when the stream allows none.
pub fn gaps_are_allowed(stream: &StreamEntry, anchor: &Anchor) -> Result<(), Refusal> {
    match anchor.gaps.first() {
        Some(gap) if !stream.definition.gaps_allowed => {
            let message = format!(
                "{} partition {}: offsets {} to {} hold no record, and the stream allows no gaps",
                anchor.stream, anchor.partition, gap.first, gap.last
            );
            Err(Refusal::new(RefusalCode::Gap, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proof::statement::SegmentRef;
    use cairn_proof::{Offset, Partition};

    fn anchor(first: u64, last: u64) -> Anchor {
        Anchor {
            stream: "a.b".into(),
            partition: Partition(0),
            first: Offset(first),
            last: Offset(last),
            gaps: vec![],
            count: last - first + 1,
            quarantined: 0,
            records_root: Digest::ZERO,
            timestamp_min_ms: 0,
            timestamp_max_ms: 0,
            schema_fingerprint: Digest::ZERO,
            segment: SegmentRef { path: "p".into(), size: 1, blake3: Digest::ZERO },
            previous: Digest::ZERO,
        }
    }

    #[test]
    fn only_the_head_itself_is_a_beginning() {
        let head = Head { next: Offset(100), ..Head::default() };
        let code = |first| begins_at_head(&head, &anchor(first, 200)).map_err(|refusal| refusal.code);
        assert_eq!(code(99), Err(RefusalCode::Overlap));
        assert_eq!(code(100), Ok(()));
        assert_eq!(code(101), Err(RefusalCode::Gap));
    }

    #[test]
    fn another_previous_is_refused() {
        let head = Head { anchor: Digest([1; 32]), ..Head::default() };
        assert_eq!(follows_head(&head, &anchor(0, 1)).unwrap_err().code, RefusalCode::Previous);
        assert_eq!(follows_head(&head, &Anchor { previous: Digest([1; 32]), ..anchor(0, 1) }), Ok(()));
    }
}
