//! DLPack's C exchange interface: the memory of a tensor in one call, without a Python object.
//!
//! Written after the DLPack specification, version 1.3. A type that offers the interface has a
//! capsule with a table of functions; one of them fills in a [`DlTensor`] that borrows from the
//! Python object.

use std::ffi::{c_int, c_void};

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyCapsule, PyType};

/// `DLDevice`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DlDevice {
    pub(crate) kind: c_int,
    pub(crate) id: i32,
}

/// `DLDataType`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DlDataType {
    pub(crate) code: u8,
    pub(crate) bits: u8,
    pub(crate) lanes: u16,
}

/// `DLTensor`.
#[repr(C)]
pub(crate) struct DlTensor {
    pub(crate) data: *mut c_void,
    pub(crate) device: DlDevice,
    pub(crate) ndim: i32,
    pub(crate) dtype: DlDataType,
    pub(crate) shape: *const i64,
    pub(crate) strides: *const i64,
    pub(crate) byte_offset: u64,
}

/// `kDLCPU`.
pub(crate) const CPU: c_int = 1;
/// `kDLFloat`.
pub(crate) const FLOAT: u8 = 2;
/// `kDLBfloat`.
pub(crate) const BFLOAT: u8 = 4;

/// Major version of the interface that the structures here are of.
const MAJOR: u32 = 1;
const CAPSULE: &std::ffi::CStr = c"dlpack_exchange_api";

/// `DLPackDLTensorFromPyObjectNoSync`: 0 is success, else a Python error is set.
pub(crate) type Borrow = unsafe extern "C" fn(*mut c_void, *mut DlTensor) -> c_int;

/// `DLPackExchangeAPIHeader`.
#[repr(C)]
struct Header {
    major: u32,
    minor: u32,
    previous: *const Header,
}

/// `DLPackExchangeAPI` up to the function that is used here.
#[repr(C)]
struct Table {
    header: Header,
    allocate: *const c_void,
    managed_from_object: *const c_void,
    managed_to_object: *const c_void,
    borrow: Option<Borrow>,
}

/// The function of a type that lends a tensor's memory; `None` when the type offers none that is
/// known here. Both names that the attribute has had are looked up.
///
/// A type that takes torch's operations into its own hands (a sharded, fake or quantised tensor)
/// inherits the function but has no memory of its own: what the function would tell of it is an
/// offset from nowhere.
pub(crate) fn borrow_of(kind: &Bound<'_, PyType>) -> Option<Borrow> {
    let py = kind.py();
    let dispatch = kind.getattr_opt(intern!(py, "__torch_dispatch__")).ok().flatten();
    if dispatch.is_some_and(|dispatch| !dispatch.is_instance_of::<PyCFunction>()) {
        return None;
    }
    let names =
        [intern!(py, "__dlpack_c_exchange_api__"), intern!(py, "__c_dlpack_exchange_api__")];
    let capsule = names.into_iter().find_map(|name| {
        let attribute = kind.getattr_opt(name).ok().flatten()?;
        attribute.cast_into::<PyCapsule>().ok()
    })?;
    // SAFETY: the GIL is held; with a name that does not fit the call gives null and sets an
    // error, which is taken away below.
    let table = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), CAPSULE.as_ptr()) };
    if table.is_null() {
        drop(PyErr::take(py));
        return None;
    }
    let mut header = table.cast_const().cast::<Header>();
    // A library of a newer major version may chain the tables of older ones behind its own.
    for _ in 0..16 {
        // SAFETY: a capsule of this name holds a table that lives as long as the process, and the
        // header stays the same in all versions.
        let (major, previous) = unsafe { ((*header).major, (*header).previous) };
        if major == MAJOR {
            // SAFETY: as above; a table of this major version begins with these fields.
            return unsafe { (*header.cast::<Table>()).borrow };
        }
        if previous.is_null() {
            return None;
        }
        header = previous;
    }
    None
}
