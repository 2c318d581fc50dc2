//! Where the elements of a Python tensor lie, if they can be read there.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use half::{bf16, f16};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tamegrad_stats::{TensorMut, TensorRef};

use crate::array_struct;
use crate::dlpack::{self, Borrow, DlTensor};

/// The type of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F64,
    F16,
    Bf16,
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Kind::F64 => 8,
            Kind::F32 => 4,
            Kind::F16 | Kind::Bf16 => 2,
        }
    }
}

/// The elements of a tensor: one dense stretch of the CPU's memory, aligned for its type.
///
/// `'py` is the time in which the object that owns the memory is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory<'py> {
    place: Place,
    held: PhantomData<&'py ()>,
}

/// Where elements lie, whoever holds them.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    len: usize,
    kind: Kind,
}

impl Place {
    /// `None` where this is no memory that can be read as a slice.
    fn new(start: usize, len: usize, kind: Kind) -> Option<Self> {
        let fits =
            len.checked_mul(kind.bytes()).is_some_and(|bytes| isize::try_from(bytes).is_ok());
        let is_there = len == 0 || (start != 0 && start.is_multiple_of(kind.bytes()));
        (fits && is_there).then_some(Self { start, len, kind })
    }
}

impl<'py> Memory<'py> {
    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.place.len
    }

    /// Where the bytes lie.
    pub(crate) fn addresses(&self) -> std::ops::Range<usize> {
        let Place { start, len, kind } = self.place;
        start..start + len * kind.bytes()
    }

    /// The elements, to read.
    pub(crate) fn elements(&self) -> TensorRef<'py> {
        match self.place.kind {
            Kind::F32 => TensorRef::F32(self.slice()),
            Kind::F64 => TensorRef::F64(self.slice()),
            Kind::F16 => TensorRef::F16(self.slice::<f16>()),
            Kind::Bf16 => TensorRef::Bf16(self.slice::<bf16>()),
        }
    }

    /// The elements, to change in place. One call at a time for each tensor: the caller holds a
    /// list of tensors whose memory does not overlap.
    pub(crate) fn elements_mut(&mut self) -> TensorMut<'py> {
        match self.place.kind {
            Kind::F32 => TensorMut::F32(self.slice_mut()),
            Kind::F64 => TensorMut::F64(self.slice_mut()),
            Kind::F16 => TensorMut::F16(self.slice_mut::<f16>()),
            Kind::Bf16 => TensorMut::Bf16(self.slice_mut::<bf16>()),
        }
    }

    fn slice<T>(&self) -> &'py [T] {
        if self.place.len == 0 {
            return &[];
        }
        // SAFETY: `Place::new` has checked null, alignment and size, the tensor's library vouches
        // for the length, the owner is held for `'py`, and `T` is a float of the kind's size, for
        // which any bits are a value. Python code that writes to a tensor in another thread while
        // it is read gives numbers of both states, as it does with the library's own kernels.
        unsafe { std::slice::from_raw_parts(self.place.start as *const T, self.place.len) }
    }

    fn slice_mut<T>(&mut self) -> &'py mut [T] {
        if self.place.len == 0 {
            return &mut [];
        }
        // SAFETY: as in `slice`; the memory is written by nobody else meanwhile, which is what the
        // library asks of its own in-place operations.
        unsafe { std::slice::from_raw_parts_mut(self.place.start as *mut T, self.place.len) }
    }
}

/// Finds the memory of Python tensors; keeps what it has learned of the last type it met.
#[derive(Default)]
pub(crate) struct Finder {
    /// The type, and how the memory of its tensors is found.
    latest: Option<(Py<PyAny>, Way)>,
}

impl Finder {
    /// The memory of a tensor; `None` when its elements are not one dense stretch of f32, f64,
    /// f16 or bf16 in the CPU's memory, or when nothing tells where they lie.
    pub(crate) fn find<'a>(&mut self, tensor: &'a Bound<'_, PyAny>) -> Option<Memory<'a>> {
        let place = self.place_of(tensor)?;
        Some(Memory { place, held: PhantomData })
    }

    fn place_of(&mut self, tensor: &Bound<'_, PyAny>) -> Option<Place> {
        match self.way_of(tensor) {
            Way::Lent(borrow) => lent(tensor, borrow),
            Way::Numpy => by_array_struct(tensor).or_else(|| by_array_interface(tensor)),
            Way::Told => by_array_interface(tensor).or_else(|| by_methods(tensor)),
        }
    }

    fn way_of(&mut self, tensor: &Bound<'_, PyAny>) -> Way {
        let kind = tensor.get_type();
        match &self.latest {
            Some((known, way)) if known.as_ptr() == kind.as_ptr() => *way,
            _ => {
                let way = match dlpack::borrow_of(&kind) {
                    Some(borrow) => Way::Lent(borrow),
                    None if array_struct::is_ndarray(&kind) => Way::Numpy,
                    None => Way::Told,
                };
                self.latest = Some((kind.into_any().unbind(), way));
                way
            }
        }
    }
}

/// How the memory of tensors of a type is found.
#[derive(Clone, Copy)]
enum Way {
    /// By the function of DLPack's interface.
    Lent(Borrow),
    /// As numpy's own arrays tell it.
    Numpy,
    /// By attributes and methods of the object.
    Told,
}

fn lent(tensor: &Bound<'_, PyAny>, borrow: Borrow) -> Option<Place> {
    let mut lent = MaybeUninit::<DlTensor>::zeroed();
    // SAFETY: the function comes from the table of this object's own type, the object is alive and
    // the GIL is held.
    let status = unsafe { borrow(tensor.as_ptr().cast::<c_void>(), lent.as_mut_ptr()) };
    if status != 0 {
        drop(PyErr::take(tensor.py()));
        return None;
    }
    // SAFETY: all bits zero are a value of the structure, and the call has filled it in.
    let lent = unsafe { lent.assume_init() };
    let kind = match (lent.dtype.code, lent.dtype.bits, lent.dtype.lanes) {
        (dlpack::FLOAT, 32, 1) => Kind::F32,
        (dlpack::FLOAT, 64, 1) => Kind::F64,
        (dlpack::FLOAT, 16, 1) => Kind::F16,
        (dlpack::BFLOAT, 16, 1) => Kind::Bf16,
        _ => return None,
    };
    let ndim = usize::try_from(lent.ndim).ok()?;
    // A tensor that wraps others has no memory of its own, and its shape is not to be looked at.
    // An empty tensor has none either: it is left to the caller.
    if lent.device.kind != dlpack::CPU || lent.data.is_null() || (ndim > 0 && lent.shape.is_null())
    {
        return None;
    }
    // SAFETY: shape and strides have `ndim` entries each, and are the object's own; strides may be
    // null for a contiguous tensor before version 1.2.
    let (shape, strides) = unsafe {
        let part = |start: *const i64| {
            if start.is_null() { &[][..] } else { std::slice::from_raw_parts(start, ndim) }
        };
        (part(lent.shape), part(lent.strides))
    };
    let len = dense_len(shape, strides)?;
    let start = (lent.data as usize).checked_add(usize::try_from(lent.byte_offset).ok()?)?;
    Place::new(start, len, kind)
}

/// Number of elements, when they lie in one stretch in whatever order of dimensions; `None` if
/// there are gaps or repetitions. Without strides a tensor is contiguous.
fn dense_len(shape: &[i64], strides: &[i64]) -> Option<usize> {
    let mut len = 1_usize;
    for size in shape {
        len = len.checked_mul(usize::try_from(*size).ok()?)?;
    }
    if len == 0 || strides.is_empty() {
        return Some(len);
    }
    // Nearly all tensors are contiguous, which one pass from the last dimension shows.
    let mut expected = 1_i64;
    let contiguous = shape.iter().zip(strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == expected;
        expected = expected.saturating_mul(*size);
        fits
    });
    if contiguous {
        return Some(len);
    }
    let mut dims: Vec<(i64, i64)> =
        strides.iter().copied().zip(shape.iter().copied()).filter(|(_, size)| *size != 1).collect();
    dims.sort_unstable();
    let mut expected = 1_i64;
    dims.iter()
        .all(|(stride, size)| {
            let fits = *stride == expected;
            expected = expected.saturating_mul(*size);
            fits
        })
        .then_some(len)
}

/// The memory of one of numpy's own arrays, if it is contiguous.
fn by_array_struct(array: &Bound<'_, PyAny>) -> Option<Place> {
    let (start, len, bytes) = array_struct::contiguous_floats(array)?;
    let kind = match bytes {
        4 => Kind::F32,
        8 => Kind::F64,
        2 => Kind::F16,
        _ => return None,
    };
    Place::new(start, len, kind)
}

/// The memory that `__array_interface__` tells (numpy and what follows it).
fn by_array_interface(array: &Bound<'_, PyAny>) -> Option<Place> {
    let py = array.py();
    let interface = array.getattr_opt(intern!(py, "__array_interface__")).ok().flatten()?;
    let interface = interface.cast::<PyDict>().ok()?;
    let item = |name| interface.get_item(name).ok().flatten();
    let native = if cfg!(target_endian = "little") { "<" } else { ">" };
    let kind = match item("typestr")?.extract::<String>().ok()?.strip_prefix(native)? {
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        "f2" => Kind::F16,
        _ => return None,
    };
    let shape: Vec<i64> = item("shape")?.extract().ok()?;
    let strides: Vec<i64> = match item("strides").filter(|strides| !strides.is_none()) {
        Some(strides) => {
            let bytes: Vec<i64> = strides.extract().ok()?;
            let size = kind.bytes() as i64;
            if bytes.iter().any(|stride| stride % size != 0) {
                return None;
            }
            bytes.iter().map(|stride| stride / size).collect()
        }
        None => Vec::new(),
    };
    let (start, _): (usize, bool) = item("data")?.extract().ok()?;
    Place::new(start, dense_len(&shape, &strides)?, kind)
}

/// The memory that torch's own methods tell, for versions without DLPack's interface.
fn by_methods(tensor: &Bound<'_, PyAny>) -> Option<Place> {
    let py = tensor.py();
    let get = |name: &str| tensor.getattr_opt(name).ok().flatten();
    let text = |value: Bound<'_, PyAny>| value.str().ok().map(|text| text.to_string());
    let is_cpu = text(get("device")?.getattr_opt(intern!(py, "type")).ok()??)? == "cpu";
    let is_strided = text(get("layout")?)? == "torch.strided";
    let kind = match text(get("dtype")?)?.as_str() {
        "torch.float32" => Kind::F32,
        "torch.float64" => Kind::F64,
        "torch.float16" => Kind::F16,
        "torch.bfloat16" => Kind::Bf16,
        _ => return None,
    };
    let wraps = get("_local_tensor").is_some() || get("__tensor_flatten__").is_some();
    if !is_cpu || !is_strided || wraps {
        return None;
    }
    let shape: Vec<i64> = get("shape")?.extract().ok()?;
    let strides: Vec<i64> = tensor.call_method0(intern!(py, "stride")).ok()?.extract().ok()?;
    let start: usize = tensor.call_method0(intern!(py, "data_ptr")).ok()?.extract().ok()?;
    Place::new(start, dense_len(&shape, &strides)?, kind)
}

/// Python's collector of reference cycles, off until this is dropped. Every gradient that is asked
/// for is a new object, and thousands of them would set it off several times over.
struct PausedCollector {
    was_on: bool,
}

impl PausedCollector {
    /// With the GIL held.
    fn new() -> Self {
        // SAFETY: the caller holds the GIL, and keeps it while this lives.
        Self { was_on: unsafe { ffi::PyGC_Disable() } == 1 }
    }
}

impl Drop for PausedCollector {
    fn drop(&mut self) {
        if self.was_on {
            // SAFETY: as in `new`.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}

/// Tensors that are held while their memory is read without the GIL.
pub(crate) struct Held<'py> {
    objects: Vec<Bound<'py, PyAny>>,
    places: Vec<Option<Place>>,
}

impl<'py> Held<'py> {
    /// Holds the gradients of parameters, or the tensors themselves; `None` stands for what is
    /// absent.
    pub(crate) fn new(
        list: &Bound<'py, pyo3::types::PyList>,
        of: Option<&Bound<'py, pyo3::types::PyString>>,
        finder: &mut Finder,
    ) -> PyResult<Self> {
        let py = list.py();
        let _pause = PausedCollector::new();
        let mut objects = Vec::with_capacity(list.len());
        let mut places = Vec::with_capacity(list.len());
        for item in list.iter() {
            let object = match of {
                Some(name) => {
                    // SAFETY: both are live objects and the GIL is held; null is an error.
                    let value = unsafe { ffi::PyObject_GetAttr(item.as_ptr(), name.as_ptr()) };
                    // SAFETY: the call gives a new reference, or null with an error set.
                    unsafe { Bound::from_owned_ptr_or_err(py, value) }?
                }
                None => item,
            };
            // At once: what tells where a tensor lies is in the cache now, and not when thousands
            // of others have been asked.
            places.push(if object.is_none() { None } else { finder.place_of(&object) });
            objects.push(object);
        }
        Ok(Self { objects, places })
    }

    /// The objects without the GIL's lifetime.
    pub(crate) fn into_objects(self) -> Vec<Py<PyAny>> {
        self.objects.into_iter().map(Bound::unbind).collect()
    }

    /// Number of objects.
    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether an object of the list is `None`.
    pub(crate) fn is_absent(&self, index: usize) -> bool {
        self.objects.get(index).is_none_or(|object| object.is_none())
    }

    /// The memory of an object of the list, by the rule of [`Finder::find`].
    pub(crate) fn memory(&self, index: usize) -> Option<Memory<'_>> {
        let place = self.places.get(index).copied().flatten()?;
        Some(Memory { place, held: PhantomData })
    }
}
