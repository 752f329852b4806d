//! Which deflate library, and which level: every file of a repository, on one thread. Guards the choices in `Cargo.toml` and
//! `pack/spool.rs`.

use std::{hint::black_box, time::Instant};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use libdeflater::{CompressionLvl, Compressor, Decompressor};

use crate::measure::median;

/// How one file is deflated, and how a stream is inflated into a buffer of exactly the right size.
trait Library {
    fn deflate(&mut self, file: &[u8]) -> Vec<u8>;
    fn inflate(&mut self, stream: &[u8], file: &mut [u8]);
}

/// Prints a line for each library and level, of medians: how much of `files` it takes a second, and what is left of them.
pub(crate) fn compare(files: &[Vec<u8>], runs: usize) {
    let bytes: usize = files.iter().map(Vec::len).sum();
    let largest = files.iter().map(Vec::len).max().unwrap_or_default();
    let mut out = vec![0; largest];
    let mut libraries: Vec<(&str, u8, Box<dyn Library>)> = Vec::new();
    for level in 1..=6 {
        libraries.push(("zlib-rs", level, Box::new(ZlibRs::new(level))));
    }
    libraries.push(("miniz_oxide", 6, Box::new(MinizOxide(6))));
    for level in [1, 6] {
        libraries.push(("libdeflate, in C", level, Box::new(Libdeflate::new(level))));
    }
    let mut times = vec![[Vec::new(), Vec::new()]; libraries.len()];
    let mut left = vec![0; libraries.len()];
    for _ in 0..runs {
        for (number, (.., library)) in libraries.iter_mut().enumerate() {
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
    println!("| library | level | deflates | to | inflates |\n| --- | ---: | ---: | ---: | ---: |");
    for (((name, level, _), times), left) in libraries.iter().zip(times).zip(left) {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rates = times.map(|times| {
            let seconds = median(times.into_iter()).as_secs_f64();
            format!("{:.0} MB/s", bytes as f64 / 1e6 / seconds)
        });
        let [deflates, inflates] = rates;
        let left = crate::bytes(left as u64);
        println!("| {name} | {level} | {deflates} | {left} | {inflates} |");
    }
    println!();
}

struct ZlibRs(Compress, Decompress);

impl ZlibRs {
    fn new(level: u8) -> Self {
        let level = Compression::new(level.into());
        Self(Compress::new(level, false), Decompress::new(false))
    }
}

impl Library for ZlibRs {
    fn deflate(&mut self, file: &[u8]) -> Vec<u8> {
        self.0.reset();
        // Level 1 writes fixed codes, of up to nine bits a byte.
        let mut stream = Vec::with_capacity(file.len() + file.len() / 4 + 64);
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

struct MinizOxide(u8);

impl Library for MinizOxide {
    fn deflate(&mut self, file: &[u8]) -> Vec<u8> {
        miniz_oxide::deflate::compress_to_vec(file, self.0)
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
    fn new(level: u8) -> Self {
        let level = CompressionLvl::new(level.into()).expect("a level");
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
