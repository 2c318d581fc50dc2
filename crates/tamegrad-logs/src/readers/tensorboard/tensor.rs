//! Numbers out of a `TensorProto`, which newer writers use for scalars and histograms.

use half::{bf16, f16};

use crate::bins::BINS_MAX;
use crate::wire::{Malformed, Value, each_chunk, each_fixed, each_varint, fields};

/// Columns of a histogram: left, right, count.
pub(super) const COLUMNS: usize = 3;

/// Numbers of `DataType` in tensorflow/core/framework/types.proto.
mod dtype {
    pub(super) const FLOAT: u64 = 1;
    pub(super) const DOUBLE: u64 = 2;
    pub(super) const INT32: u64 = 3;
    pub(super) const UINT8: u64 = 4;
    pub(super) const INT16: u64 = 5;
    pub(super) const INT8: u64 = 6;
    pub(super) const INT64: u64 = 9;
    pub(super) const BFLOAT16: u64 = 14;
    pub(super) const UINT16: u64 = 17;
    pub(super) const HALF: u64 = 19;
    pub(super) const UINT32: u64 = 22;
    pub(super) const UINT64: u64 = 23;
}

#[derive(Debug, Clone, Copy)]
struct Form {
    dtype: u64,
    rank: usize,
    /// The last dimension.
    columns: u64,
    /// `None` where it is not known or too large.
    elements: Option<u64>,
}

/// The value of a tensor with one element; `None` for more elements and for what is no number.
pub(super) fn number(tensor: &[u8]) -> Result<Option<f64>, Malformed> {
    let form = form(tensor)?;
    if form.elements != Some(1) || !is_number(form.dtype) {
        return Ok(None);
    }
    let mut found = None;
    each_number(tensor, form.dtype, |number| {
        found.get_or_insert(number);
    })?;
    // Writers leave out the value of a tensor that is zero.
    Ok(Some(found.unwrap_or(0.0)))
}

/// Puts the rows of a histogram, of shape `[bins, 3]`, into `rows`; whether it is one.
pub(super) fn histogram(tensor: &[u8], rows: &mut Vec<f64>) -> Result<bool, Malformed> {
    rows.clear();
    let form = form(tensor)?;
    let is_histogram = form.rank == 2 && form.columns == COLUMNS as u64 && is_number(form.dtype);
    let Some(elements) = form.elements.filter(|_| is_histogram) else { return Ok(false) };
    if elements > (BINS_MAX * COLUMNS) as u64 {
        return Ok(false);
    }
    each_number(tensor, form.dtype, |number| {
        if (rows.len() as u64) < elements {
            rows.push(number);
        }
    })?;
    Ok(rows.len() as u64 == elements)
}

fn form(tensor: &[u8]) -> Result<Form, Malformed> {
    let mut form = Form { dtype: 0, rank: 0, columns: 1, elements: Some(1) };
    for field in fields(tensor) {
        match field? {
            (1, Value::Varint(dtype)) => form.dtype = dtype,
            (2, Value::Bytes(shape)) => read_shape(shape, &mut form)?,
            _ => {}
        }
    }
    Ok(form)
}

fn read_shape(shape: &[u8], form: &mut Form) -> Result<(), Malformed> {
    for field in fields(shape) {
        match field? {
            (2, Value::Bytes(dimension)) => {
                form.columns = 0;
                for field in fields(dimension) {
                    if let (1, Value::Varint(size)) = field? {
                        form.columns = size;
                    }
                }
                form.rank += 1;
                form.elements = form.elements.and_then(|all| all.checked_mul(form.columns));
            }
            // The rank is not known.
            (3, Value::Varint(1)) => form.elements = None,
            _ => {}
        }
    }
    Ok(())
}

fn is_number(dtype: u64) -> bool {
    use dtype::*;
    let all =
        [FLOAT, DOUBLE, INT32, UINT8, INT16, INT8, INT64, BFLOAT16, UINT16, HALF, UINT32, UINT64];
    all.contains(&dtype)
}

/// Gives each number of a tensor to `take`, from whichever of its fields holds them.
fn each_number(tensor: &[u8], dtype: u64, mut take: impl FnMut(f64)) -> Result<(), Malformed> {
    use dtype::*;
    for field in fields(tensor) {
        match (field?, dtype) {
            ((4, Value::Bytes(content)), _) => each_raw(content, dtype, &mut take)?,
            ((5, value), FLOAT) => each_fixed(value, |n| take(f32::from_le_bytes(n).into()))?,
            ((6, value), DOUBLE) => each_fixed(value, |n| take(f64::from_le_bytes(n)))?,
            ((7, value), INT32 | UINT8 | INT16 | INT8 | UINT16) | ((10, value), INT64) => {
                each_varint(value, |number| take(number as i64 as f64))?;
            }
            ((13, value), HALF) => {
                each_varint(value, |bits| take(f16::from_bits(bits as u16).to_f64()))?;
            }
            ((13, value), BFLOAT16) => {
                each_varint(value, |bits| take(bf16::from_bits(bits as u16).to_f64()))?;
            }
            ((16, value), UINT32) | ((17, value), UINT64) => {
                each_varint(value, |number| take(number as f64))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives each number of `tensor_content`, the memory of the tensor as it is, to `take`.
fn each_raw(content: &[u8], dtype: u64, mut take: impl FnMut(f64)) -> Result<(), Malformed> {
    match dtype {
        dtype::FLOAT => each_chunk(content, |bytes| take(f32::from_le_bytes(bytes).into())),
        dtype::DOUBLE => each_chunk(content, |bytes| take(f64::from_le_bytes(bytes))),
        dtype::INT32 => each_chunk(content, |bytes| take(i32::from_le_bytes(bytes).into())),
        dtype::UINT8 => each_chunk(content, |bytes| take(u8::from_le_bytes(bytes).into())),
        dtype::INT16 => each_chunk(content, |bytes| take(i16::from_le_bytes(bytes).into())),
        dtype::INT8 => each_chunk(content, |bytes| take(i8::from_le_bytes(bytes).into())),
        dtype::INT64 => each_chunk(content, |bytes| take(i64::from_le_bytes(bytes) as f64)),
        dtype::BFLOAT16 => each_chunk(content, |bytes| take(bf16::from_le_bytes(bytes).into())),
        dtype::UINT16 => each_chunk(content, |bytes| take(u16::from_le_bytes(bytes).into())),
        dtype::HALF => each_chunk(content, |bytes| take(f16::from_le_bytes(bytes).into())),
        dtype::UINT32 => each_chunk(content, |bytes| take(u32::from_le_bytes(bytes).into())),
        dtype::UINT64 => each_chunk(content, |bytes| take(u64::from_le_bytes(bytes) as f64)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::write::{message, varint};
    use proptest::prelude::*;

    fn shape(sizes: &[u64]) -> Vec<u8> {
        let sizes: Vec<Vec<u8>> =
            sizes.iter().map(|&size| message(&[(1, Value::Varint(size))])).collect();
        message(&sizes.iter().map(|size| (2, Value::Bytes(size))).collect::<Vec<_>>())
    }

    fn tensor(dtype: u64, sizes: &[u64], field: u32, value: Value<'_>) -> Vec<u8> {
        message(&[(1, Value::Varint(dtype)), (2, Value::Bytes(&shape(sizes))), (field, value)])
    }

    #[test]
    fn one_number_in_every_encoding() {
        let minus_two = varint(-2_i64 as u64);
        let half = u64::from(f16::from_f64(0.5).to_bits());
        let brain = bf16::from_f64(-3.0).to_bits();
        type Case<'a> = (u64, &'a [u64], u32, Value<'a>, Option<f64>);
        let cases: &[Case<'_>] = &[
            (dtype::FLOAT, &[], 5, Value::Bytes(&1.5_f32.to_le_bytes()), Some(1.5)),
            (dtype::FLOAT, &[1], 5, Value::Fixed32(1.5_f32.to_bits()), Some(1.5)),
            (dtype::FLOAT, &[], 4, Value::Bytes(&f32::INFINITY.to_le_bytes()), Some(f64::INFINITY)),
            (dtype::FLOAT, &[1, 1], 4, Value::Bytes(&[]), Some(0.0)),
            (dtype::DOUBLE, &[], 6, Value::Bytes(&2.5_f64.to_le_bytes()), Some(2.5)),
            (dtype::DOUBLE, &[], 4, Value::Bytes(&2.5_f64.to_le_bytes()), Some(2.5)),
            (dtype::INT32, &[], 7, Value::Bytes(&minus_two), Some(-2.0)),
            (dtype::INT32, &[], 4, Value::Bytes(&(-2_i32).to_le_bytes()), Some(-2.0)),
            (dtype::INT64, &[], 10, Value::Varint(7), Some(7.0)),
            (dtype::UINT8, &[], 4, Value::Bytes(&[200]), Some(200.0)),
            (dtype::HALF, &[], 13, Value::Varint(half), Some(0.5)),
            (dtype::HALF, &[], 4, Value::Bytes(&(half as u16).to_le_bytes()), Some(0.5)),
            (dtype::BFLOAT16, &[], 13, Value::Varint(brain.into()), Some(-3.0)),
            (dtype::BFLOAT16, &[], 4, Value::Bytes(&brain.to_le_bytes()), Some(-3.0)),
            (dtype::UINT64, &[], 17, Value::Varint(9), Some(9.0)),
            // More than one number, and text.
            (dtype::FLOAT, &[2], 5, Value::Bytes(&[0; 8]), None),
            (dtype::FLOAT, &[0], 5, Value::Bytes(&[]), None),
            (dtype::FLOAT, &[u64::MAX, u64::MAX], 5, Value::Bytes(&[]), None),
            (7, &[], 8, Value::Bytes(b"text"), None),
        ];
        for &(dtype, sizes, field, value, want) in cases {
            let got = number(&tensor(dtype, sizes, field, value));
            assert_eq!(got, Ok(want), "type {dtype}, shape {sizes:?}, field {field}");
        }
        let cut = tensor(dtype::FLOAT, &[], 4, Value::Bytes(&[0; 3]));
        assert_eq!(number(&cut), Err(Malformed));
    }

    #[test]
    fn rows_of_a_histogram() {
        let rows = [0.0, 1.0, 5.0, 1.0, 2.0, 6.0];
        let content: Vec<u8> = rows.iter().flat_map(|row: &f64| row.to_le_bytes()).collect();
        let mut got = Vec::new();
        let good = tensor(dtype::DOUBLE, &[2, 3], 4, Value::Bytes(&content));
        assert_eq!(histogram(&good, &mut got), Ok(true));
        assert_eq!(got, rows);
        for sizes in [&[6][..], &[3, 2], &[3, 3], &[1 << 40, 3]] {
            let other = tensor(dtype::DOUBLE, sizes, 4, Value::Bytes(&content));
            assert_eq!(histogram(&other, &mut got), Ok(false), "{sizes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_number_or_not(
            dtype in 0_u64..25,
            field in 4_u32..18,
            content: Vec<u8>,
        ) {
            let mut rows = Vec::new();
            let bytes = tensor(dtype, &[1, 3], field, Value::Bytes(&content));
            if histogram(&bytes, &mut rows) == Ok(true) {
                prop_assert_eq!(rows.len(), 3);
            }
            let bytes = tensor(dtype, &[], field, Value::Bytes(&content));
            if let Ok(Some(_)) = number(&bytes) {
                prop_assert!(is_number(dtype));
            }
            prop_assert!(number(&content).is_ok_and(|n| n.is_none()) || !content.is_empty());
        }
    }
}
