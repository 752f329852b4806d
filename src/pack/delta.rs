//! A delta: how to make an object of another one. Own code, since `gix`'s is not public.
//!
//! Source: <https://git-scm.com/docs/pack-format#_deltified_representation>

use super::PackError;

/// Two sizes of at most ten bytes each.
pub(super) const HEADER_LEN: usize = 20;

/// The base's and the result's size in bytes, and how many bytes of `delta` say so.
pub(super) fn sizes(delta: &[u8]) -> Result<(u64, u64, usize), PackError> {
    let mut at = 0;
    let mut size = || {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = *delta
                .get(at)
                .ok_or_else(|| PackError::damaged("a delta without sizes"))?;
            at += 1;
            if shift > 56 {
                return Err(PackError::damaged("a delta with a size over 2^63"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
    };
    let (base, result) = (size()?, size()?);
    Ok((base, result, at))
}

/// Carries out a delta's instructions; `None` if they do not fit the base or the result's size.
pub(super) fn apply(base: &[u8], instructions: &[u8], result_size: u64) -> Option<Vec<u8>> {
    let result_size = usize::try_from(result_size).ok()?;
    let mut result = Vec::with_capacity(result_size);
    let mut rest = instructions;
    while let Some((&instruction, more)) = rest.split_first() {
        rest = more;
        let bytes = if instruction & 0x80 != 0 {
            // Copy from the base: bits 0 to 3 say which bytes of the offset follow, bits 4 to 6 which of the length.
            let mut number = |bits: std::ops::Range<u8>| {
                let mut value = 0;
                for (n, bit) in bits.enumerate() {
                    if instruction & (1 << bit) != 0 {
                        let (&byte, more) = rest.split_first()?;
                        rest = more;
                        value |= usize::from(byte) << (8 * n);
                    }
                }
                Some(value)
            };
            let offset = number(0..4)?;
            let len = match number(4..7)? {
                0 => 0x10000,
                len => len,
            };
            base.get(offset..offset.checked_add(len)?)?
        } else if instruction != 0 {
            // Insert as many of the bytes that follow.
            let (bytes, more) = rest.split_at_checked(instruction.into())?;
            rest = more;
            bytes
        } else {
            return None;
        };
        if bytes.len() > result_size - result.len() {
            return None;
        }
        result.extend_from_slice(bytes);
    }
    (result.len() == result_size).then_some(result)
}
