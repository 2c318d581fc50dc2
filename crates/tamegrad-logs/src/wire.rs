//! The protobuf wire format, read in place: bounds-checked, without recursion and without memory.

/// What does not follow the wire format: a length beyond the end, an endless varint, a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The value of a field, as its wire type says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message: their numbers and values, in the order of the bytes. The last item is
/// [`Malformed`] where the rest cannot be read.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

/// The fields of the message in these bytes.
pub(crate) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = field(&mut self.rest);
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

#[inline]
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).ok()?;
    let value = match key & 7 {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(array(rest)?)),
        2 => Value::Bytes(bytes(rest)?),
        5 => Value::Fixed32(u32::from_le_bytes(array(rest)?)),
        // Groups are long out of use, and the two left over never were in use.
        _ => return None,
    };
    Some((number, value))
}

#[inline]
fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes)
}

#[inline]
fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*bytes)
}

#[inline]
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let (&first, after) = rest.split_first()?;
    if first < 0x80 {
        *rest = after;
        return Some(u64::from(first));
    }
    let mut value = 0;
    for (index, &byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *rest = rest.get(index + 1..)?;
            return Some(value);
        }
    }
    None
}

/// Gives each number of a repeated varint field, which may be packed, to `take`.
pub(crate) fn each_varint(value: Value<'_>, mut take: impl FnMut(u64)) -> Result<(), Malformed> {
    match value {
        Value::Varint(value) => take(value),
        Value::Bytes(mut rest) => {
            while !rest.is_empty() {
                take(varint(&mut rest).ok_or(Malformed)?);
            }
        }
        _ => return Err(Malformed),
    }
    Ok(())
}

/// Gives each number of a repeated field of `N` bytes a number, which may be packed, to `take`.
pub(crate) fn each_fixed<const N: usize>(
    value: Value<'_>,
    take: impl FnMut([u8; N]),
) -> Result<(), Malformed> {
    match value {
        Value::Bytes(packed) => each_chunk(packed, take),
        Value::Fixed32(bits) if N == 4 => each_chunk(&bits.to_le_bytes(), take),
        Value::Fixed64(bits) if N == 8 => each_chunk(&bits.to_le_bytes(), take),
        _ => Err(Malformed),
    }
}

/// Gives every `N` bytes to `take`; the bytes must be a whole number of them.
pub(crate) fn each_chunk<const N: usize>(
    packed: &[u8],
    take: impl FnMut([u8; N]),
) -> Result<(), Malformed> {
    let (chunks, rest) = packed.as_chunks();
    chunks.iter().copied().for_each(take);
    if rest.is_empty() { Ok(()) } else { Err(Malformed) }
}

/// Messages for tests: fields written one after the other.
#[cfg(test)]
pub(crate) mod write {
    use super::Value;

    pub(crate) fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    pub(crate) fn message(fields: &[(u32, Value<'_>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(number, value) in fields {
            let key = |wire| varint(u64::from(number) << 3 | wire);
            match value {
                Value::Varint(value) => bytes.extend([key(0), varint(value)].concat()),
                Value::Fixed64(bits) => bytes.extend([&key(1)[..], &bits.to_le_bytes()].concat()),
                Value::Bytes(inner) => {
                    bytes.extend([&key(2)[..], &varint(inner.len() as u64), inner].concat());
                }
                Value::Fixed32(bits) => bytes.extend([&key(5)[..], &bits.to_le_bytes()].concat()),
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_read_up_to_what_is_malformed() {
        let eleven = [&[0x08][..], &[0xff; 11]].concat();
        type Case<'a> = (&'a [u8], &'a [Result<(u32, Value<'a>), Malformed>]);
        let cases: &[Case<'_>] = &[
            (&[], &[]),
            (&[0x08, 0x96, 0x01], &[Ok((1, Value::Varint(150)))]),
            (&[0x12, 2, b'h', b'i'], &[Ok((2, Value::Bytes(b"hi")))]),
            (&[0x1d, 0, 0, 0x80, 0x3f], &[Ok((3, Value::Fixed32(1.0_f32.to_bits())))]),
            (&[0x21, 1, 0, 0, 0, 0, 0, 0, 0], &[Ok((4, Value::Fixed64(1)))]),
            (&[0x08, 5, 0x12, 9, b'h'], &[Ok((1, Value::Varint(5))), Err(Malformed)]),
            (&[0x0b, 0x0c], &[Err(Malformed)]),
            (&[0x21, 1], &[Err(Malformed)]),
            (&eleven, &[Err(Malformed)]),
        ];
        for (bytes, want) in cases {
            assert_eq!(fields(bytes).collect::<Vec<_>>(), *want, "{bytes:?}");
        }
    }

    #[test]
    fn packed_and_single_numbers_read_alike() {
        let mut got = Vec::new();
        let packed: Vec<u8> =
            [1.5_f64, f64::INFINITY].iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut push = |v| got.push(f64::from_le_bytes(v));
        assert_eq!(each_fixed(Value::Bytes(&packed), &mut push), Ok(()));
        assert_eq!(each_fixed(Value::Fixed64(2.5_f64.to_bits()), &mut push), Ok(()));
        let mut push = |v| got.push(f32::from_le_bytes(v).into());
        assert_eq!(each_fixed(Value::Bytes(&1.25_f32.to_le_bytes()), &mut push), Ok(()));
        assert_eq!(each_fixed(Value::Fixed64(1), &mut push), Err(Malformed));
        assert_eq!(each_varint(Value::Bytes(&[3, 0x96, 1]), |v| got.push(v as f64)), Ok(()));
        assert_eq!(got, [1.5, f64::INFINITY, 2.5, 1.25, 3.0, 150.0]);
        assert_eq!(each_fixed(Value::Bytes(&packed[..9]), |_: [u8; 8]| {}), Err(Malformed));
        assert_eq!(each_fixed(Value::Varint(1), |_: [u8; 4]| {}), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in 1_u32..1 << 29, bits: u64, inner: Vec<u8>) {
            let want = [
                (number, Value::Varint(bits)),
                (number, Value::Bytes(&inner)),
                (number, Value::Fixed64(bits)),
                (number, Value::Fixed32(bits as u32)),
            ];
            let read: Result<Vec<_>, _> = fields(&write::message(&want)).collect::<Vec<_>>()
                .into_iter().map(|field| field.map(|(n, v)| (n, format!("{v:?}")))).collect();
            let want = want.iter().map(|(n, v)| (*n, format!("{v:?}"))).collect();
            prop_assert_eq!(read, Ok(want));
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let read = fields(&bytes).count();
            prop_assert!(read <= bytes.len());
        }
    }
}
