//! Parameters of a chain: what its validators may change by vote, and the length of an epoch, which they may not.
//!
//! ```text
//! CBOR [epoch_blocks, heartbeat_ms, block_statements_max, block_bytes_max, batch_records_max, absence_epochs, vote_epochs]
//! ```
//!
//! They stand in the genesis and from then on in the state. What a machine needs for itself (ports, folders, limits of
//! its API) is configuration and no parameter.

use serde::{Deserialize, Serialize};

use crate::block::{BLOCK_BYTES_MAX, BLOCK_STATEMENTS_MAX};
use crate::cbor::{CborError, Reader, Writer};
use crate::statement::STATEMENT_BYTES_MAX;

/// What the validators of a chain agree on beside their own list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parameters {
    /// Blocks of an epoch, 2 to 1,000,000. Fixed for ever: heights lead to epochs by it alone.
    pub epoch_blocks: u64,
    /// Milliseconds after which a validator proposes a block without statements, 50 to 60,000.
    pub heartbeat_ms: u64,
    /// Most statements of one block, 1 to 4,096.
    pub block_statements_max: u32,
    /// Most bytes of one block's statements, 65,535 (one statement of any size) to 2,097,152.
    pub block_bytes_max: u32,
    /// Most records of one batch, whatever its stream allows, 1 to 10,000,000.
    pub batch_records_max: u32,
    /// Epochs in a row without a proposal or a vote after which a validator is suspended; 0: nobody is. At most 1,000,000.
    pub absence_epochs: u32,
    /// How many epochs ahead of its own a vote may say that it expires, 1 to 1,000.
    pub vote_epochs: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            epoch_blocks: 200,
            heartbeat_ms: 3000,
            block_statements_max: BLOCK_STATEMENTS_MAX as u32,
            block_bytes_max: BLOCK_BYTES_MAX as u32,
            batch_records_max: 10_000_000,
            absence_epochs: 3,
            vote_epochs: 10,
        }
    }
}

/// A parameter out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {least} to {most}, found {found}")]
pub struct ParameterError {
    /// Which parameter, as in `parameters.epoch_blocks`.
    pub field: &'static str,
    /// Least allowed value.
    pub least: u64,
    /// Greatest allowed value.
    pub most: u64,
    /// What stands there.
    pub found: u64,
}

impl Parameters {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first parameter that is out of its range.
    pub fn check(&self) -> Result<(), ParameterError> {
        let ranges = [
            ("parameters.epoch_blocks", self.epoch_blocks, 2, 1_000_000),
            ("parameters.heartbeat_ms", self.heartbeat_ms, 50, 60_000),
            ("parameters.block_statements_max", self.block_statements_max.into(), 1, BLOCK_STATEMENTS_MAX as u64),
            (
                "parameters.block_bytes_max",
                self.block_bytes_max.into(),
                STATEMENT_BYTES_MAX as u64,
                BLOCK_BYTES_MAX as u64,
            ),
            ("parameters.batch_records_max", self.batch_records_max.into(), 1, 10_000_000),
            ("parameters.absence_epochs", self.absence_epochs.into(), 0, 1_000_000),
            ("parameters.vote_epochs", self.vote_epochs.into(), 1, 1000),
        ];
        match ranges.into_iter().find(|(_, found, least, most)| !(least..=most).contains(&found)) {
            None => Ok(()),
            Some((field, found, least, most)) => Err(ParameterError { field, least, most, found }),
        }
    }

    /// Appends the canonical bytes.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.array(7);
        writer.unsigned(self.epoch_blocks);
        writer.unsigned(self.heartbeat_ms);
        for number in [
            self.block_statements_max,
            self.block_bytes_max,
            self.batch_records_max,
            self.absence_epochs,
            self.vote_epochs,
        ] {
            writer.unsigned(u64::from(number));
        }
    }

    /// Reads canonical bytes. Ranges are not judged: [`Parameters::check`] does.
    ///
    /// # Errors
    /// When they are not of the shape above.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        reader.array_of(7)?;
        Ok(Self {
            epoch_blocks: reader.unsigned()?,
            heartbeat_ms: reader.unsigned()?,
            block_statements_max: reader.unsigned32()?,
            block_bytes_max: reader.unsigned32()?,
            batch_records_max: reader.unsigned32()?,
            absence_epochs: reader.unsigned32()?,
            vote_epochs: reader.unsigned32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parameters(numbers: [u64; 2], small: [u32; 5]) -> Parameters {
        let [block_statements_max, block_bytes_max, batch_records_max, absence_epochs, vote_epochs] = small;
        Parameters {
            epoch_blocks: numbers[0],
            heartbeat_ms: numbers[1],
            block_statements_max,
            block_bytes_max,
            batch_records_max,
            absence_epochs,
            vote_epochs,
        }
    }

    #[test]
    fn the_defaults_are_in_range_and_both_ends_of_each_range_hold() {
        Parameters::default().check().unwrap();
        let least = parameters([2, 50], [1, 65_535, 1, 0, 1]);
        let most = parameters([1_000_000, 60_000], [4096, 2 << 20, 10_000_000, 1_000_000, 1000]);
        least.check().unwrap();
        most.check().unwrap();
        type Change = fn(&mut Parameters, i32);
        let fields: [(&str, Change); 7] = [
            ("epoch_blocks", |p, by| p.epoch_blocks = p.epoch_blocks.wrapping_add_signed(by.into())),
            ("heartbeat_ms", |p, by| p.heartbeat_ms = p.heartbeat_ms.wrapping_add_signed(by.into())),
            ("block_statements_max", |p, by| p.block_statements_max = p.block_statements_max.wrapping_add_signed(by)),
            ("block_bytes_max", |p, by| p.block_bytes_max = p.block_bytes_max.wrapping_add_signed(by)),
            ("batch_records_max", |p, by| p.batch_records_max = p.batch_records_max.wrapping_add_signed(by)),
            ("absence_epochs", |p, by| p.absence_epochs = p.absence_epochs.wrapping_add_signed(by)),
            ("vote_epochs", |p, by| p.vote_epochs = p.vote_epochs.wrapping_add_signed(by)),
        ];
        for (name, change) in fields {
            for (mut changed, by) in [(least, -1), (most, 1)] {
                change(&mut changed, by);
                assert_eq!(changed.check().unwrap_err().field, format!("parameters.{name}"), "{by}");
            }
        }
    }

    #[test]
    fn json_fills_in_defaults_and_refuses_unknown_names() {
        let read: Parameters = serde_json::from_str(r#"{"epoch_blocks":10}"#).unwrap();
        assert_eq!(read, Parameters { epoch_blocks: 10, ..Parameters::default() });
        assert!(serde_json::from_str::<Parameters>(r#"{"epoch":10}"#).is_err());
    }

    proptest! {
        #[test]
        fn they_round_trip(numbers in any::<[u64; 2]>(), small in any::<[u32; 5]>()) {
            let parameters = parameters(numbers, small);
            let mut bytes = Vec::new();
            parameters.write(&mut Writer::new(&mut bytes));
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Parameters::read(&mut reader).unwrap(), parameters);
            reader.end().unwrap();
        }

        #[test]
        fn any_bytes_are_refused_or_the_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(parameters) = Parameters::read(&mut reader) {
                let mut again = Vec::new();
                parameters.write(&mut Writer::new(&mut again));
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - reader.remaining()]);
            }
        }
    }
}
