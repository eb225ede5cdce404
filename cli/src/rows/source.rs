//! The bytes of an input file: opened, decompressed by what they are (not by their name), bounded in memory.
//!
//! A few kilobytes of compressed data can claim to need gigabytes of window or to hold one endless line. The windows
//! are limited here, the lines in [`super::lines`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// Memory that a decompressor may take: what `xz -9 --memlimit` and `zstd --long=27` need, and no more.
const XZ_BYTES_MAX: u64 = 128 * 1024 * 1024;
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const BUFFER_BYTES: usize = 128 * 1024;
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0x00];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const MAGIC_BYTES_MAX: usize = 6;

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// `-` on the command line.
    StandardInput,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// `-` is standard input, all else a path.
    pub(crate) fn parse(argument: &Path) -> Self {
        if argument == Path::new("-") { Self::StandardInput } else { Self::File(argument.to_owned()) }
    }

    /// What to call it in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::StandardInput => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// How far reading has come, in bytes of the file as it lies on disk. May be read from another thread.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Progress {
    /// Bytes taken from the file so far.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The file's size; `None` for standard input and other pipes.
    pub(crate) fn total_bytes(&self) -> Option<u64> {
        self.total
    }
}

/// An open, decompressed input.
pub(super) struct Source {
    pub(super) reader: Box<dyn BufRead + Send>,
    pub(super) progress: Progress,
}

/// Opens an input and looks at its first bytes to see how it is compressed.
pub(super) fn open(input: &Input) -> Result<Source> {
    let (raw, total): (Box<dyn Read + Send>, _) = match input {
        Input::StandardInput => (Box::new(io::stdin()), None),
        Input::File(path) => {
            let file = File::open(path).with_context(|| format!("cannot open {}", input.name()))?;
            let about = file.metadata().with_context(|| format!("cannot open {}", input.name()))?;
            ensure!(!about.is_dir(), "{} is a folder: name the files in it", input.name());
            (Box::new(file), about.is_file().then_some(about.len()))
        }
    };
    let progress = Progress { read: Arc::new(AtomicU64::new(0)), total };
    let counted = Counted { inner: raw, read: progress.read.clone() };
    let mut reader = decompress(counted).with_context(|| format!("cannot read {}", input.name()))?;
    skip_byte_order_mark(&mut reader).with_context(|| format!("cannot read {}", input.name()))?;
    Ok(Source { reader, progress })
}

fn decompress(mut raw: Counted) -> io::Result<Box<dyn BufRead + Send>> {
    let mut magic = Vec::with_capacity(MAGIC_BYTES_MAX);
    (&mut raw).take(MAGIC_BYTES_MAX as u64).read_to_end(&mut magic)?;
    let starts_with = |wanted: &[u8]| magic.starts_with(wanted);
    let kind = match () {
        () if starts_with(GZIP) => Compression::Gzip,
        () if starts_with(XZ) => Compression::Xz,
        () if starts_with(ZSTD) => Compression::Zstd,
        () => Compression::None,
    };
    let whole: Chain<Cursor<Vec<u8>>, Counted> = Cursor::new(magic).chain(raw);
    Ok(match kind {
        Compression::None => Box::new(BufReader::with_capacity(BUFFER_BYTES, whole)),
        Compression::Gzip => {
            // Multi: files that were appended to each other, as log shippers and bgzip write them.
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(BufReader::new(whole))))
        }
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(XZ_BYTES_MAX, CONCATENATED).map_err(io::Error::other)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, XzDecoder::new_stream(whole, stream)))
        }
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
    })
}

enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

fn skip_byte_order_mark(reader: &mut Box<dyn BufRead + Send>) -> io::Result<()> {
    if reader.fill_buf()?.starts_with(&BYTE_ORDER_MARK) {
        reader.consume(BYTE_ORDER_MARK.len());
    }
    Ok(())
}

/// Counts what is read.
struct Counted {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"a,b\n1,2\n";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        liblzma::read::XzEncoder::new(text, 1).read_to_end(&mut out).unwrap();
        out
    }

    fn zst(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Vec<u8>, Progress)> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("rows.dat");
        std::fs::write(&path, bytes)?;
        let mut source = open(&Input::File(path))?;
        let mut out = Vec::new();
        source.reader.read_to_end(&mut out)?;
        Ok((out, source.progress))
    }

    #[test]
    fn plain_and_compressed_files_give_the_same_bytes() {
        for bytes in [TEXT.to_vec(), gzip(TEXT), xz(TEXT), zst(TEXT)] {
            let (text, progress) = read(&bytes).unwrap();
            assert_eq!(text, TEXT);
            assert_eq!(progress.read_bytes(), bytes.len() as u64);
            assert_eq!(progress.total_bytes(), Some(bytes.len() as u64));
        }
        assert_eq!(read(b"").unwrap().0, b"");
        assert_eq!(read(&[&BYTE_ORDER_MARK, TEXT].concat()).unwrap().0, TEXT);
        assert_eq!(read(&gzip(&[&BYTE_ORDER_MARK, TEXT].concat())).unwrap().0, TEXT);
    }

    #[test]
    fn files_that_were_appended_to_each_other_are_read_to_the_end() {
        for twice in [gzip(TEXT).repeat(2), xz(TEXT).repeat(2), zst(TEXT).repeat(2)] {
            assert_eq!(read(&twice).unwrap().0, TEXT.repeat(2));
        }
    }

    #[test]
    fn a_file_that_ends_early_or_is_damaged_is_an_error() {
        let long: Vec<u8> = (0..200_000_u32).flat_map(|number| number.to_le_bytes()).collect();
        for whole in [gzip(&long), xz(&long), zst(&long)] {
            assert!(read(&whole[..whole.len() / 2]).is_err(), "half a file passed");
            let mut damaged = whole.clone();
            damaged[whole.len() / 2] ^= 0x55;
            let text = read(&damaged).map(|(text, _)| text).unwrap_or_default();
            assert_ne!(text, long, "a damaged file passed");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let text = open(&Input::File("no/such/rows.csv".into())).err().unwrap().to_string();
        assert!(text.contains("no/such/rows.csv"), "{text}");
        let folder = tempfile::tempdir().unwrap();
        let text = open(&Input::File(folder.path().into())).err().unwrap().to_string();
        assert!(text.contains("is a folder"), "{text}");
        assert_eq!(Input::parse(Path::new("-")), Input::StandardInput);
        assert_eq!(Input::StandardInput.name(), "standard input");
    }
}
