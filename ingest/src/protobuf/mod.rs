//! Protobuf records: a stream's schema is a compiled `.proto` and the name of a message; its columns follow from them.
//!
//! ```text
//! {"message": "city.air.Reading", "columns": {an Avro record}, "descriptors": "base64 of a FileDescriptorSet"}
//! ```
//!
//! That is the schema's text on the chain. The `.proto` files are compiled once, where the stream is defined, so that nobody
//! who reads records has to parse a language; `columns` says what the message becomes, for those who know nothing of
//! Protobuf (segments, SQL), and is refused when it is not what follows from the descriptors.
//!
//! | Protobuf | column |
//! | --- | --- |
//! | `double`, `float`, `bool`, `string`, `bytes` | the same |
//! | `int32`, `sint32`, `sfixed32` | int |
//! | `int64`, `sint64`, `sfixed64`, `uint32`, `fixed32` | long |
//! | `uint64`, `fixed64` | decimal(20, 0) |
//! | an enum | text: the name; of a number without one, the number |
//! | a message | a record; null where it is not set |
//! | `repeated` | a list, empty where there is nothing |
//! | `map` | a map from texts, in the order of its keys |
//! | `optional`, a member of a `oneof`, everything of proto2 | may be null |
//! | `google.protobuf.*Value` (wrappers) | the value, may be null |
//! | `google.protobuf.Timestamp` | a timestamp in nanoseconds: of the years 1678 to 2261 |
//!
//! What has no column is refused when the stream is defined: messages within themselves, messages without fields as a field,
//! names that begin with `_`. A stream has one version; see `crate::update`.

mod columns;
mod decode;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::{Error, Result};
pub(crate) use decode::{Plan, VALUE_BYTES_MAX, framed};

/// The text of a schema.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Schema {
    message: String,
    columns: Json,
    descriptors: String,
}

/// How deep brackets of a `.proto` may nest: its parser recurses.
const SOURCE_NESTING_MAX: usize = 64;

/// Compiles `file` and all that it imports, which `load` gives by name, to the text of a stream's schema. Google's
/// well-known files need not be there.
///
/// # Errors
/// [`Input`](crate::ErrorKind::Input): what does not compile and where, a message that is not there, or has no columns.
pub fn compile(
    file: &str,
    message: &str,
    load: impl Fn(&str) -> std::io::Result<String> + Send + Sync + 'static,
) -> Result<String> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources(load));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(false);
    compiler.open_file(file).map_err(|error| Error::input(format!("{file} does not compile: {error:?}")))?;
    let descriptors = compiler.encode_file_descriptor_set();
    let found = find(&descriptors, message)?;
    let columns = columns::of(&found)?;
    let schema = Schema { message: message.to_owned(), columns, descriptors: BASE64.encode(descriptors) };
    serde_json::to_string(&schema).map_err(|error| Error::bug("a schema cannot be written").because(error))
}

/// The message that a schema's text names.
///
/// # Errors
/// [`Input`](crate::ErrorKind::Input): not such a text, or one whose columns are not those of its message.
pub(crate) fn message(text: &str) -> Result<MessageDescriptor> {
    let schema: Schema = serde_json::from_str(text)
        .map_err(|error| Error::input("the schema is not that of a Protobuf message").because(error))?;
    let descriptors = BASE64
        .decode(&schema.descriptors)
        .map_err(|error| Error::input("the schema's descriptors are not base64").because(error))?;
    let found = find(&descriptors, &schema.message)?;
    if columns::of(&found)? != schema.columns {
        return Err(Error::input(format!(
            "the schema's columns are not those of the message {}: compile the .proto anew",
            schema.message
        )));
    }
    Ok(found)
}

fn find(descriptors: &[u8], name: &str) -> Result<MessageDescriptor> {
    let pool = DescriptorPool::decode(descriptors)
        .map_err(|error| Error::input("the schema's descriptors cannot be read").because(error))?;
    pool.get_message_by_name(name).ok_or_else(|| {
        let known: Vec<_> = pool.all_messages().filter(|message| !message.is_map_entry()).take(50).collect();
        let known: Vec<_> = known.iter().map(MessageDescriptor::full_name).collect();
        Error::input(format!("there is no message {name:?}; there are {}", known.join(", ")))
    })
}

/// Files by their names in imports.
struct Sources<L>(L);

impl<L: Fn(&str) -> std::io::Result<String> + Send + Sync> FileResolver for Sources<L> {
    fn open_file(&self, name: &str) -> std::result::Result<File, protox::Error> {
        let source = (self.0)(name).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => protox::Error::file_not_found(name),
            _ => protox::Error::new(error),
        })?;
        if nesting(&source) > SOURCE_NESTING_MAX {
            let what = format!("{name} nests brackets deeper than {SOURCE_NESTING_MAX}");
            return Err(protox::Error::new(std::io::Error::other(what)));
        }
        File::from_source(name, &source)
    }
}

/// How deep the brackets of a text nest, those in comments and texts counted too.
fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for c in source.chars() {
        match c {
            '{' | '(' | '[' | '<' => depth += 1,
            '}' | ')' | ']' | '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
