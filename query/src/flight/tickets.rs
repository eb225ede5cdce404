//! Tickets: what a client hands back to get the rows of a statement that it asked about.
//!
//! A ticket stands for itself: nothing is kept here for it, so tickets that nobody comes back with cost nothing, and one
//! works from any connection. It names the height that the client was told, so that the rows are of that block however
//! late they are fetched. It is not trusted: its text is parsed and checked as any statement's.
//!
//! ```text
//! 0       kind u8     0 no rows · 1 statement · 2 prepared statement
//! 1..9    height u64 BE                                             kinds 1 and 2
//! 9..     kind 1: the statement, UTF-8; kind 2: the handle, u64 BE
//! ```

use cairn_proof::units::Height;

const NOTHING: u8 = 0;
const STATEMENT: u8 = 1;
const PREPARED: u8 = 2;

/// A decoded ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ticket {
    /// Of a statement that has no rows and was run when it was asked about.
    Nothing,
    /// A statement, and the block that it is to be computed at.
    Statement { height: Height, sql: String },
    /// A prepared statement of the session.
    Prepared { height: Height, handle: u64 },
}

/// A ticket cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ticket of {bytes} bytes cannot be read: {reason}; ask for the statement's FlightInfo again")]
pub(crate) struct TicketError {
    bytes: usize,
    reason: &'static str,
}

impl Ticket {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, height, rest) = match self {
            Self::Nothing => return vec![NOTHING],
            Self::Statement { height, sql } => (STATEMENT, height, sql.as_bytes().to_vec()),
            Self::Prepared { height, handle } => (PREPARED, height, handle.to_be_bytes().to_vec()),
        };
        let mut bytes = Vec::with_capacity(9 + rest.len());
        bytes.push(kind);
        bytes.extend(height.0.to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, TicketError> {
        let wrong = |reason| TicketError { bytes: bytes.len(), reason };
        let (kind, rest) = bytes.split_first().ok_or_else(|| wrong("it is empty"))?;
        if *kind == NOTHING {
            return if rest.is_empty() { Ok(Self::Nothing) } else { Err(wrong("there is more than its kind")) };
        }
        let (height, rest) = rest.split_first_chunk().ok_or_else(|| wrong("expected 8 bytes of height"))?;
        let height = Height(u64::from_be_bytes(*height));
        match *kind {
            STATEMENT => {
                let sql = std::str::from_utf8(rest).map_err(|_| wrong("its statement is not UTF-8"))?;
                Ok(Self::Statement { height, sql: sql.to_owned() })
            }
            PREPARED => {
                let handle = rest.try_into().map_err(|_| wrong("expected a handle of 8 bytes"))?;
                Ok(Self::Prepared { height, handle: u64::from_be_bytes(handle) })
            }
            _ => Err(wrong("its kind is none of 0, 1 and 2")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [(Ticket, &'static str); 3] {
        [
            (Ticket::Nothing, "00"),
            (
                Ticket::Statement { height: Height(258), sql: "SELECT 1".to_owned() },
                "01000000000000010253454c4543542031",
            ),
            (Ticket::Prepared { height: Height(3), handle: 7 }, "0200000000000000030000000000000007"),
        ]
    }

    #[test]
    fn the_bytes_are_those_of_docs_formats() {
        for (ticket, bytes) in all() {
            assert_eq!(hex::encode(ticket.encode()), bytes);
            assert_eq!(Ticket::decode(&hex::decode(bytes).expect("hex")), Ok(ticket));
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused_or_is_another_ticket() {
        for (ticket, _) in all() {
            let bytes = ticket.encode();
            for cut in 0..bytes.len() {
                assert_ne!(Ticket::decode(&bytes[..cut]), Ok(ticket.clone()), "cut at {cut}");
            }
            for at in 0..bytes.len() {
                for byte in 0..=u8::MAX {
                    let mut changed = bytes.clone();
                    changed[at] = byte;
                    let decoded = Ticket::decode(&changed);
                    assert_eq!(decoded == Ok(ticket.clone()), changed == bytes, "byte {at} = {byte}");
                    if let Ok(other) = decoded {
                        assert_eq!(other.encode(), changed);
                    }
                }
            }
        }
        assert!(Ticket::decode(&[]).is_err());
    }
}
