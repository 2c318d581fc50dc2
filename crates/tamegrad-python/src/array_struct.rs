//! The C side of the array interface: the memory of a numpy array in one look, without a dictionary.
//!
//! Written after numpy's documentation of the protocol, version 3: `__array_struct__` is a capsule with a
//! structure that borrows from the array.

use std::ffi::{c_char, c_int, c_void};

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyType};

/// `PyArrayInterface` up to the data.
#[repr(C)]
#[derive(Clone, Copy)]
struct ArrayInterface {
    /// 2 in every version.
    two: c_int,
    ndim: c_int,
    /// `f` for floats.
    kind: c_char,
    /// Bytes of an element.
    bytes: c_int,
    flags: c_int,
    shape: *const isize,
    strides: *const isize,
    data: *mut c_void,
}

/// `NPY_ARRAY_C_CONTIGUOUS` or `NPY_ARRAY_F_CONTIGUOUS`.
const DENSE: c_int = 0x1 | 0x2;
/// `NPY_ARRAY_ALIGNED` and `NPY_ARRAY_NOTSWAPPED`.
const NATIVE: c_int = 0x100 | 0x200;

/// Whether objects of this type are numpy's own arrays. These hold what their capsule tells of; what
/// another type tells of may belong to its capsule.
pub(crate) fn is_ndarray(kind: &Bound<'_, PyType>) -> bool {
    kind.fully_qualified_name().is_ok_and(|name| name == "numpy.ndarray")
}

/// Start, number of elements and bytes of an element of one of numpy's own arrays; `None` when they are
/// no contiguous floats of this machine.
pub(crate) fn contiguous_floats(array: &Bound<'_, PyAny>) -> Option<(usize, usize, usize)> {
    let py = array.py();
    let capsule = array.getattr(intern!(py, "__array_struct__")).ok()?;
    let capsule = capsule.cast_into::<PyCapsule>().ok()?;
    // SAFETY: the GIL is held, and the object is a capsule; if it has a name the call gives null.
    let told = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), std::ptr::null()) };
    if told.is_null() {
        drop(PyErr::take(py));
        return None;
    }
    // SAFETY: the array is numpy's own, whose capsule holds this structure while it lives.
    let told = unsafe { *told.cast::<ArrayInterface>() };
    let is_plain = told.two == 2 && told.kind == b'f' as c_char;
    if !is_plain || told.flags & NATIVE != NATIVE || told.flags & DENSE == 0 {
        return None;
    }
    let ndim = usize::try_from(told.ndim).ok()?;
    let shape = match ndim {
        0 => &[][..],
        _ if told.shape.is_null() => return None,
        // SAFETY: not null, of `ndim` entries, and alive as long as the capsule.
        _ => unsafe { std::slice::from_raw_parts(told.shape, ndim) },
    };
    let mut len = 1_usize;
    for size in shape {
        len = len.checked_mul(usize::try_from(*size).ok()?)?;
    }
    Some((told.data as usize, len, usize::try_from(told.bytes).ok()?))
}
