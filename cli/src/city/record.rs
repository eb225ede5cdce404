//! From the simulator's events to the bytes of Kafka records, by the schemas of the streams on the chain.

use anyhow::{Context, Result, bail};
use cairn_ingest::encode::{Encoder, Message};
use cairn_proof::statement::StreamDefinition;
use serde_json::Value;

use super::{CityStream, Event, Payload, Reading};

/// Encodes events; one for a run, its buffer is kept.
#[derive(Debug)]
pub(crate) struct CityEncoder {
    /// In the order of [`CityStream::ALL`].
    encoders: [Encoder; 3],
    message: Message,
}

impl CityEncoder {
    /// Prepares encoding by the definitions of the three streams among `streams`.
    ///
    /// # Errors
    /// When one of them is not there, or has a schema that is none.
    pub(crate) fn new(streams: &[StreamDefinition]) -> Result<Self> {
        let encoder = |stream: CityStream| {
            let definition = streams.iter().find(|definition| definition.name == stream.name()).with_context(|| {
                format!(
                    "the stream {} is not registered: the simulator needs the built-in streams, which `cairn init` sets up",
                    stream.name()
                )
            })?;
            Ok::<_, anyhow::Error>(Encoder::new(definition)?)
        };
        let [traffic, energy, emergency] = CityStream::ALL;
        let encoders = [encoder(traffic)?, encoder(energy)?, encoder(emergency)?];
        Ok(Self { encoders, message: Message::default() })
    }

    /// The value of the event's record; `None` for a record without one.
    ///
    /// # Errors
    /// When the stream was registered with another schema, which the simulator's readings do not fit.
    pub(crate) fn value<'a>(&'a mut self, event: &'a Event) -> Result<Option<&'a [u8]>> {
        let reading = match &event.payload {
            Payload::Null => return Ok(None),
            Payload::Bytes(bytes) => return Ok(Some(bytes)),
            Payload::Row(reading) => reading,
        };
        let Value::Object(row) = reading.to_json()? else { bail!("a reading is an object") };
        self.encoders[event.stream.index()]
            .encode_object(&row, &mut self.message)
            .with_context(|| format!("the stream {} has another schema than the simulator", event.stream.name()))?;
        Ok(Some(&self.message.value))
    }
}

impl Reading {
    /// The reading as an object by the names of the schema; times are milliseconds.
    fn to_json(&self) -> Result<Value> {
        Ok(match self {
            Self::Traffic(flow) => serde_json::to_value(flow)?,
            Self::Energy(reading) => serde_json::to_value(reading)?,
            Self::Emergency(message) => serde_json::to_value(message)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use cairn_ingest::decode::StreamDecoder;

    use super::*;
    use crate::city::{City, CityConfig};
    use crate::stream_file;

    #[test]
    fn what_is_good_decodes_and_what_is_bad_is_quarantined_all_of_it() {
        let streams = stream_file::built_in().unwrap();
        let mut encoder = CityEncoder::new(&streams).unwrap();
        let mut values: [Vec<(Option<Vec<u8>>, bool)>; 3] = Default::default();
        let config = CityConfig { bad_share: 0.3, incidents_per_day: 60_000, ..CityConfig::default() };
        for event in City::new(&config).unwrap().take(20_000) {
            let value = encoder.value(&event).unwrap().map(<[u8]>::to_vec);
            values[event.stream.index()].push((value, event.is_bad()));
        }
        for (stream, values) in streams.iter().zip(&values) {
            let decoder = StreamDecoder::new(stream).unwrap();
            let decoded = decoder.decode(values.iter().map(|(value, _)| value.as_deref())).unwrap();
            assert!(values.len() > 1000, "{} of {}", values.len(), stream.name);
            assert_eq!(decoded.batch.num_rows(), values.len());
            for ((value, bad), reason) in values.iter().zip(&decoded.errors) {
                assert_eq!(reason.is_some(), *bad, "{}: {reason:?} for {value:?}", stream.name);
            }
            let kinds = &decoded.quarantined;
            assert!(kinds.len() >= 2, "{}: all bad records are bad in the same way: {kinds:?}", stream.name);
        }
    }

    #[test]
    fn a_stream_that_is_not_there_or_is_another_one_is_named() {
        let mut streams = stream_file::built_in().unwrap();
        let other = r#"{"type":"record","name":"R","fields":[{"name":"meter_id","type":"string"},
            {"name":"interval_start","type":"long"}]}"#;
        streams[1].schemas[0].text = other.to_owned();
        let mut encoder = CityEncoder::new(&streams).unwrap();
        let config = CityConfig { detectors: 0, incidents_per_day: 0, bad_share: 0.0, ..CityConfig::default() };
        let event = City::new(&config).unwrap().next().unwrap();
        let text = format!("{:#}", encoder.value(&event).unwrap_err());
        assert!(text.contains("energy.meter_reading has another schema") && text.contains("column"), "{text}");
        streams.remove(1);
        let text = CityEncoder::new(&streams).err().unwrap().to_string();
        assert!(text.contains("energy.meter_reading is not registered"), "{text}");
    }
}
