//! Which deflate library: every file of a repository, on one thread. Guards the choice in `Cargo.toml`.

use std::{hint::black_box, time::Instant};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use libdeflater::{CompressionLvl, Compressor, Decompressor};

use crate::measure::median;

/// The product's level, and git's default.
const LEVEL: u8 = 6;

/// How one file is deflated, and how a stream is inflated into a buffer of exactly the right size.
trait Library {
    fn deflate(&mut self, file: &[u8]) -> Vec<u8>;
    fn inflate(&mut self, stream: &[u8], file: &mut [u8]);
}

/// Prints a line for each library, of medians: how much of `files` it takes a second, and what is left of them.
pub(crate) fn compare(files: &[Vec<u8>], runs: usize) {
    let bytes: usize = files.iter().map(Vec::len).sum();
    let largest = files.iter().map(Vec::len).max().unwrap_or_default();
    let mut out = vec![0; largest];
    let mut libraries: [(&str, Box<dyn Library>); 3] = [
        ("zlib-rs, the product's", Box::new(ZlibRs::new())),
        ("miniz_oxide", Box::new(MinizOxide)),
        ("libdeflate, in C", Box::new(Libdeflate::new())),
    ];
    let mut times = [const { [Vec::new(), Vec::new()] }; 3];
    let mut left = [0; 3];
    for _ in 0..runs {
        for (number, (_, library)) in libraries.iter_mut().enumerate() {
            let started = Instant::now();
            let streams: Vec<_> = files.iter().map(|file| library.deflate(file)).collect();
            times[number][0].push(started.elapsed());
            let started = Instant::now();
            for (file, stream) in files.iter().zip(&streams) {
                library.inflate(stream, &mut out[..file.len()]);
                black_box(&out);
            }
            times[number][1].push(started.elapsed());
            left[number] = streams.iter().map(Vec::len).sum();
        }
    }
    println!("| library | deflates, level {LEVEL} | to | inflates |\n| --- | ---: | ---: | ---: |");
    for (((name, _), times), left) in libraries.iter().zip(times).zip(left) {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rates = times.map(|times| {
            let seconds = median(times.into_iter()).as_secs_f64();
            format!("{:.0} MB/s", bytes as f64 / 1e6 / seconds)
        });
        let [deflates, inflates] = rates;
        let left = crate::bytes(left as u64);
        println!("| {name} | {deflates} | {left} | {inflates} |");
    }
    println!();
}

struct ZlibRs(Compress, Decompress);

impl ZlibRs {
    fn new() -> Self {
        let level = Compression::new(LEVEL.into());
        Self(Compress::new(level, false), Decompress::new(false))
    }
}

impl Library for ZlibRs {
    fn deflate(&mut self, file: &[u8]) -> Vec<u8> {
        self.0.reset();
        let mut stream = Vec::with_capacity(file.len() + file.len() / 1000 + 64);
        let done = self
            .0
            .compress_vec(file, &mut stream, FlushCompress::Finish);
        assert!(done.is_ok_and(|done| done == flate2::Status::StreamEnd));
        stream
    }

    fn inflate(&mut self, stream: &[u8], file: &mut [u8]) {
        self.1.reset(false);
        let done = self.1.decompress(stream, file, FlushDecompress::Finish);
        assert!(done.is_ok_and(|done| done == flate2::Status::StreamEnd));
    }
}

struct MinizOxide;

impl Library for MinizOxide {
    fn deflate(&mut self, file: &[u8]) -> Vec<u8> {
        miniz_oxide::deflate::compress_to_vec(file, LEVEL)
    }

    fn inflate(&mut self, stream: &[u8], file: &mut [u8]) {
        let made = miniz_oxide::inflate::decompress_slice_iter_to_slice(
            file,
            std::iter::once(stream),
            false,
            true,
        );
        assert_eq!(made, Ok(file.len()));
    }
}

struct Libdeflate(Compressor, Decompressor);

impl Libdeflate {
    fn new() -> Self {
        let level = CompressionLvl::new(LEVEL.into()).expect("a level");
        Self(Compressor::new(level), Decompressor::new())
    }
}

impl Library for Libdeflate {
    fn deflate(&mut self, file: &[u8]) -> Vec<u8> {
        let mut stream = vec![0; self.0.deflate_compress_bound(file.len())];
        let made = self.0.deflate_compress(file, &mut stream);
        stream.truncate(made.expect("room enough"));
        stream
    }

    fn inflate(&mut self, stream: &[u8], file: &mut [u8]) {
        let made = self.1.deflate_decompress(stream, file);
        assert_eq!(made, Ok(file.len()));
    }
}
