//! An answer as a file of columns, Parquet or Arrow IPC: its batches come over the Flight SQL port and are written as they
//! come, so that an answer may be larger than memory.
//!
//! The file appears under its name when the answer is whole, and not at all if the statement fails on the way.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::FileWriter;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt as _;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::Target;

/// The most bytes of one message: a batch of records with large texts.
const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// The form of a file, by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Parquet,
    Arrow,
}

impl Form {
    /// The form that a file's name asks for.
    pub(super) fn of(file: &Path) -> Result<Self> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("parquet") => Ok(Self::Parquet),
            Some("arrow") => Ok(Self::Arrow),
            _ => bail!("{}: expected a name that ends with .parquet or .arrow", file.display()),
        }
    }
}

/// Runs a statement in a session with these settings and writes its rows; gives their number.
pub(super) async fn write(target: &Target, settings: &[(&str, String)], sql: &str, file: &Path) -> Result<u64> {
    let form = Form::of(file)?;
    let mut client = connect(target).await?;
    for (name, value) in settings {
        let set = format!("SET {name} = '{}'", value.replace('\'', "''"));
        client.execute_update(set, None).await.map_err(|error| anyhow!(told(&error)))?;
    }
    let info = client.execute(sql.to_owned(), None).await.map_err(|error| anyhow!(told(&error)))?;
    let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket);
    let ticket = ticket.context("the server named no place to fetch the rows from")?;
    let mut batches = client.do_get(ticket).await.map_err(|error| anyhow!(told(&error)))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unfinished = tempfile::Builder::new()
        .prefix(".cairn-")
        .tempfile_in(folder)
        .with_context(|| format!("no file can be made in {}", folder.display()))?;
    let mut writer: Option<Writer> = None;
    let mut rows = 0;
    loop {
        let batch = batches.try_next().await.map_err(|error| anyhow!(told(&error)))?;
        let Some(batch) = batch else { break };
        if writer.is_none() {
            writer = Some(Writer::new(form, unfinished.reopen()?, &batch.schema())?);
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch)?;
        }
        rows += batch.num_rows() as u64;
    }
    let writer = match (writer, batches.schema()) {
        (Some(writer), _) => writer,
        (None, Some(schema)) if !schema.fields().is_empty() => Writer::new(form, unfinished.reopen()?, schema)?,
        (None, _) => bail!("the statement has no rows to write"),
    };
    writer.finish()?;
    unfinished.as_file().sync_all()?;
    unfinished.persist(file).with_context(|| format!("the file {} cannot be written", file.display()))?;
    Ok(rows)
}

async fn connect(target: &Target) -> Result<FlightSqlServiceClient<Channel>> {
    let addr = target.flight.context("there is no Flight SQL port: set [query.flight] listen in cairn.toml")?;
    let scheme = if target.certificate.is_some() { "https" } else { "http" };
    let mut endpoint =
        Endpoint::from_shared(format!("{scheme}://{addr}"))?.connect_timeout(std::time::Duration::from_secs(5));
    if let Some(file) = &target.certificate {
        let pem = std::fs::read(file).with_context(|| format!("the certificate {} cannot be read", file.display()))?;
        let name = if addr.ip().is_loopback() { "localhost".to_owned() } else { addr.ip().to_string() };
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)).domain_name(name);
        endpoint = endpoint.tls_config(tls)?;
    }
    let channel = endpoint.connect().await.with_context(|| {
        format!(
            "no answer from query's Flight SQL port on {addr}; is `cairn query` running, and its certificate known?"
        )
    })?;
    let client = arrow_flight::flight_service_client::FlightServiceClient::new(channel);
    let mut client = FlightSqlServiceClient::new_from_inner(client.max_decoding_message_size(MESSAGE_BYTES_MAX));
    if let Some(token) = target.login()? {
        client.set_token(token);
    }
    Ok(client)
}

/// What the server said of a statement.
fn told(error: &FlightError) -> String {
    match error {
        FlightError::Tonic(status) => status.message().to_owned(),
        other => other.to_string(),
    }
}

/// Writes batches in one of the forms.
enum Writer {
    Parquet(Box<ArrowWriter<File>>),
    Arrow(Box<FileWriter<BufWriter<File>>>),
}

impl Writer {
    fn new(form: Form, file: File, schema: &SchemaRef) -> Result<Self> {
        Ok(match form {
            Form::Arrow => Self::Arrow(Box::new(FileWriter::try_new_buffered(file, schema)?)),
            Form::Parquet => {
                // Also outside of Arrow's own description, for readers that know nothing of it.
                let said = schema.metadata().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
                    .set_key_value_metadata(Some(said.collect()))
                    .build();
                Self::Parquet(Box::new(ArrowWriter::try_new(file, Arc::clone(schema), Some(properties))?))
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Arrow(writer) => writer.write(batch)?,
            Self::Parquet(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Arrow(mut writer) => writer.finish()?,
            Self::Parquet(writer) => drop(writer.close()?),
        }
        Ok(())
    }
}
