//! Tensors in memory: their types, and their elements as bytes.
//!
//! [`Tensor`], [`TensorRef`] and [`TensorMut`] are what crosses from room to room: into and out of executors,
//! checkpoints and data sets. A new element type is a variant of [`DType`] and a row of `native!`.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// A real number: 32 bits on devices; the reference can also evaluate it in 64.
    F32,
    /// An unsigned 32-bit integer: step counters, random seeds and class labels.
    U32,
    /// The upper half of an f32: its range with 8 bits of precision. For storage: values are computed in f32 after
    /// widening, and rounded when they are stored.
    Bf16,
}

/// What an element is while it is computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// A real number: f32 on devices, f64 in the reference.
    Real,
    /// An unsigned 32-bit integer with wrapping arithmetic.
    U32,
}

impl DType {
    /// Bytes of one element on a device.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::Bf16 => 2,
        }
    }

    /// What elements are while they are computed with.
    pub fn lane(self) -> Lane {
        match self {
            DType::F32 | DType::Bf16 => Lane::Real,
            DType::U32 => Lane::U32,
        }
    }

    /// Whether the elements are real numbers.
    pub fn is_real(self) -> bool {
        match self {
            DType::F32 | DType::Bf16 => true,
            DType::U32 => false,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::U32 => "u32",
            DType::Bf16 => "bf16",
        })
    }
}

/// The sizes of a tensor's dimensions, outermost first; empty for a scalar.
pub type Shape = Vec<usize>;

/// Element type and shape. Written `f32[128,64,14,14]`; a scalar is `f32[]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Type {
    pub dtype: DType,
    pub shape: Shape,
}

impl Type {
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        Type { dtype, shape: shape.into() }
    }

    pub fn f32(shape: impl Into<Shape>) -> Self {
        Type::new(DType::F32, shape)
    }

    pub fn u32(shape: impl Into<Shape>) -> Self {
        Type::new(DType::U32, shape)
    }

    /// The number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes a device needs for one such tensor.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, size) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{size}")?;
        }
        f.write_str("]")
    }
}

/// A Rust type that is the memory form of an element type: any bits are a value of it.
pub trait Native: bytemuck::Pod {
    const DTYPE: DType;
}

macro_rules! native {
    ($($dtype:ident: $ty:ty)*) => {$(
        impl Native for $ty {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}
native! {
    F32: f32
    U32: u32
    Bf16: Bf16
}

/// A bfloat16 number: sign, 8 bits of exponent and 7 of fraction, the upper half of an f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Bf16(pub u16);

// SAFETY: a transparent wrapper of a u16: all its bits may be 0.
unsafe impl bytemuck::Zeroable for Bf16 {}
// SAFETY: as above: any bits are a value, there is no padding, and nothing is borrowed.
unsafe impl bytemuck::Pod for Bf16 {}

impl Bf16 {
    /// The nearest number, of two the one whose last bit is 0; beyond the largest an infinity. NaN stays NaN.
    #[inline(always)]
    pub fn from_f32(value: f32) -> Bf16 {
        Bf16((round_to_bf16(value).to_bits() >> 16) as u16)
    }

    /// Exact.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// The number that 16 bits are in IEEE 754's binary16.
pub fn half_to_f32(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// [`Bf16::from_f32`] as the f32 of the same value.
#[inline(always)]
pub fn round_to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    // Half of the last place that stays, a tie's excess taken off where that place is even. A carry goes to the
    // exponent, and at last to infinity.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // A NaN whose fraction is in the lower half alone would become an infinity.
    let bits = if value.is_nan() { bits | 0x0040_0000 } else { rounded };
    f32::from_bits(bits & 0xffff_0000)
}

/// The nearest f32 of 11 significant bits, which is what TF32 holds; of two the one with the greater magnitude.
#[inline(always)]
pub fn round_to_tf32(value: f32) -> f32 {
    let bits = value.to_bits();
    // A carry goes to the exponent, and at last to infinity.
    let rounded = bits.wrapping_add(0x1000) & 0xffff_e000;
    f32::from_bits(if value.is_finite() { rounded } else { bits })
}

/// A tensor in the host's memory, row-major. Two are equal where their types and bits are.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    ty: Type,
    /// Words, so that any element type is aligned. Bytes after the last element are 0.
    words: Vec<u64>,
}

impl Tensor {
    /// A tensor whose bits are all 0, and so its elements.
    pub fn zeros(ty: Type) -> Tensor {
        let words = vec![0; ty.bytes().div_ceil(size_of::<u64>())];
        Tensor { ty, words }
    }

    /// # Panics
    /// When there are not as many values as the shape has elements.
    pub fn new<T: Native>(shape: impl Into<Shape>, values: &[T]) -> Tensor {
        let mut tensor = Tensor::zeros(Type::new(T::DTYPE, shape));
        assert_eq!(tensor.ty.elements(), values.len(), "a value for each element of {}", tensor.ty);
        tensor.bytes_mut().copy_from_slice(bytemuck::cast_slice(values));
        tensor
    }

    /// A tensor from its elements' little-endian bytes, as files hold them; `None` where they are not as many as the
    /// type has.
    pub fn from_le_bytes(ty: Type, bytes: &[u8]) -> Option<Tensor> {
        let elements = ty.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size))?;
        if elements.checked_mul(ty.dtype.size()) != Some(bytes.len()) {
            return None;
        }
        let mut tensor = Tensor::zeros(ty);
        let size = tensor.ty.dtype.size();
        let own = tensor.bytes_mut();
        own.copy_from_slice(bytes);
        if cfg!(target_endian = "big") {
            own.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Some(tensor)
    }

    pub fn ty(&self) -> &Type {
        &self.ty
    }

    pub fn dtype(&self) -> DType {
        self.ty.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.ty.shape
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.ty.bytes();
        &mut bytemuck::cast_slice_mut(&mut self.words)[..len]
    }

    /// The elements; `None` where they are of another type.
    pub fn values<T: Native>(&self) -> Option<&[T]> {
        self.view().values()
    }

    /// The elements, to be written; `None` where they are of another type.
    pub fn values_mut<T: Native>(&mut self) -> Option<&mut [T]> {
        self.view_mut().into_values()
    }

    pub fn view(&self) -> TensorRef<'_> {
        TensorRef { dtype: self.ty.dtype, bytes: &bytemuck::cast_slice(&self.words)[..self.ty.bytes()] }
    }

    pub fn view_mut(&mut self) -> TensorMut<'_> {
        TensorMut { dtype: self.ty.dtype, bytes: self.bytes_mut() }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.ty)?;
        self.view().elements_fmt(f)
    }
}

/// A tensor's elements, row-major and borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TensorRef<'t> {
    dtype: DType,
    /// Aligned for `dtype`.
    bytes: &'t [u8],
}

impl<'t> TensorRef<'t> {
    pub fn new<T: Native>(values: &'t [T]) -> TensorRef<'t> {
        TensorRef { dtype: T::DTYPE, bytes: bytemuck::cast_slice(values) }
    }

    /// Elements that lie in memory as `bytes`, in the machine's order; `None` where these are not aligned for the type or
    /// not whole elements.
    pub fn of_bytes(dtype: DType, bytes: &'t [u8]) -> Option<TensorRef<'t>> {
        match dtype {
            DType::F32 => bytemuck::try_cast_slice(bytes).ok().map(TensorRef::new::<f32>),
            DType::U32 => bytemuck::try_cast_slice(bytes).ok().map(TensorRef::new::<u32>),
            DType::Bf16 => bytemuck::try_cast_slice(bytes).ok().map(TensorRef::new::<Bf16>),
        }
    }

    pub fn f32(values: &'t [f32]) -> TensorRef<'t> {
        TensorRef::new(values)
    }

    pub fn u32(values: &'t [u32]) -> TensorRef<'t> {
        TensorRef::new(values)
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The elements' bytes in the machine's order, aligned for their type.
    pub fn bytes(&self) -> &'t [u8] {
        self.bytes
    }

    /// The elements' bytes in the order of files; a copy on big-endian machines only.
    pub fn to_le_bytes(&self) -> Cow<'t, [u8]> {
        if cfg!(target_endian = "little") {
            return Cow::Borrowed(self.bytes);
        }
        let mut bytes = self.bytes.to_vec();
        bytes.chunks_exact_mut(self.dtype.size()).for_each(<[u8]>::reverse);
        Cow::Owned(bytes)
    }

    /// The elements; `None` where they are of another type.
    pub fn values<T: Native>(&self) -> Option<&'t [T]> {
        (self.dtype == T::DTYPE).then(|| bytemuck::cast_slice(self.bytes))
    }

    fn elements_fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            DType::F32 => f.debug_list().entries(self.values::<f32>().into_iter().flatten()).finish(),
            DType::U32 => f.debug_list().entries(self.values::<u32>().into_iter().flatten()).finish(),
            DType::Bf16 => {
                let values = self.values::<Bf16>().into_iter().flatten();
                f.debug_list().entries(values.map(|v| v.to_f32())).finish()
            }
        }
    }
}

impl fmt::Debug for TensorRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.dtype)?;
        self.elements_fmt(f)
    }
}

/// Room for a tensor's elements.
#[derive(Debug, PartialEq, Eq)]
pub struct TensorMut<'t> {
    dtype: DType,
    /// Aligned for `dtype`.
    bytes: &'t mut [u8],
}

impl<'t> TensorMut<'t> {
    pub fn new<T: Native>(values: &'t mut [T]) -> TensorMut<'t> {
        TensorMut { dtype: T::DTYPE, bytes: bytemuck::cast_slice_mut(values) }
    }

    pub fn f32(values: &'t mut [f32]) -> TensorMut<'t> {
        TensorMut::new(values)
    }

    pub fn u32(values: &'t mut [u32]) -> TensorMut<'t> {
        TensorMut::new(values)
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The elements' bytes in the machine's order, to be written.
    pub fn into_bytes(self) -> &'t mut [u8] {
        self.bytes
    }

    /// The elements, to be written; `None` where they are of another type.
    pub fn into_values<T: Native>(self) -> Option<&'t mut [T]> {
        (self.dtype == T::DTYPE).then(|| bytemuck::cast_slice_mut(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_read_exactly() {
        for (bits, value) in
            [(0x3c00, 1.0), (0xc000, -2.0), (1, 2f32.powi(-24)), (0x7bff, 65504.0), (0x3555, 0.333_251_95)]
        {
            assert_eq!(half_to_f32(bits), value, "{bits:04x}");
        }
        assert_eq!(half_to_f32(0xfc00), f32::NEG_INFINITY);
        assert!(half_to_f32(0x7c01).is_nan());
    }

    #[test]
    fn elements_are_read_as_their_type_only() {
        let mut tensor = Tensor::new([3], &[1.0f32, -0.0, f32::NAN]);
        assert_eq!(tensor.values::<u32>(), None);
        assert_eq!(tensor.values::<f32>().map(|v| v[0]), Some(1.0));
        tensor.values_mut::<f32>().unwrap()[2] = 7.0;
        assert_eq!(tensor, Tensor::new([3], &[1.0f32, -0.0, 7.0]));
        assert_ne!(tensor, Tensor::new([3], &[1.0f32, 0.0, 7.0]), "bits are compared");
        assert_ne!(tensor, Tensor::new([3, 1], &[1.0f32, -0.0, 7.0]));
        assert_eq!((tensor.view().len(), tensor.view_mut().len()), (3, 3));
        let bytes = tensor.view().bytes();
        assert_eq!(TensorRef::of_bytes(DType::F32, bytes), Some(tensor.view()));
        assert_eq!(TensorRef::of_bytes(DType::F32, &bytes[..10]), None, "part of an element");
        assert_eq!(TensorRef::of_bytes(DType::U32, &bytes[2..10]), None, "not aligned");
        assert_eq!(format!("{:?}", Tensor::new([2], &[1u32, 2])), "u32[2] [1, 2]");
    }

    #[test]
    fn bf16_is_the_nearest_and_of_two_the_even() {
        for (value, expected) in [
            (1.0, 0x3f80),
            (-0.0, 0x8000),
            // Ties between 0x3f80 and 0x3f81, and between 0x3f81 and 0x3f82.
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::from_bits(0x3f81_7fff), 0x3f81),
            (f32::MAX, 0x7f80),
            (f32::MIN, 0xff80),
            (f32::from_bits(0x7f7f_7fff), 0x7f7f),
            (f32::NEG_INFINITY, 0xff80),
            // The smallest denormals: those of f32 vanish, that of bf16 is a tie's other side.
            (f32::from_bits(1), 0),
            (f32::from_bits(0x8000), 0),
            (f32::from_bits(0x8001), 1),
            (f32::MIN_POSITIVE, 0x0080),
        ] {
            assert_eq!(Bf16::from_f32(value).0, expected, "{value:e}");
        }
        for bits in [0x7f80_0001u32, 0x7fff_ffff, 0xff80_8000, 0x7fc0_0000] {
            let narrow = Bf16::from_f32(f32::from_bits(bits));
            assert!(narrow.to_f32().is_nan(), "{bits:x}");
            assert_eq!(narrow.0 >> 15, (bits >> 31) as u16, "the sign stays");
        }
    }

    #[test]
    fn tf32_is_the_nearest_and_of_two_the_greater() {
        for (bits, expected) in [
            (0x3f80_0000u32, 0x3f80_0000),
            (0x8000_0000, 0x8000_0000),
            (0x3f80_0fff, 0x3f80_0000),
            // Ties.
            (0x3f80_1000, 0x3f80_2000),
            (0x3f80_3000, 0x3f80_4000),
            (0xbf80_1000, 0xbf80_2000),
            (0x3fff_ffff, 0x4000_0000),
            (0x7f7f_ffff, 0x7f80_0000),
            (0x0000_0fff, 0),
            (0x0000_1000, 0x0000_2000),
            (0xff80_0000, 0xff80_0000),
            (0x7f80_0001, 0x7f80_0001),
        ] {
            assert_eq!(round_to_tf32(f32::from_bits(bits)).to_bits(), expected, "{bits:x}");
        }
    }

    #[test]
    fn every_bf16_comes_back() {
        for bits in 0..=u16::MAX {
            let value = Bf16(bits);
            let back = Bf16::from_f32(value.to_f32());
            assert!(back == value || (back.to_f32().is_nan() && value.to_f32().is_nan()), "{bits:x}");
        }
    }

    #[test]
    fn bytes_of_files_are_little_endian() {
        let ty = Type::u32([2]);
        let tensor = Tensor::from_le_bytes(ty.clone(), &[1, 0, 0, 0, 0, 0, 0, 2]).unwrap();
        assert_eq!(tensor.values::<u32>(), Some(&[1, 0x0200_0000][..]));
        assert_eq!(tensor.view().to_le_bytes(), &[1, 0, 0, 0, 0, 0, 0, 2][..]);
        assert_eq!(Tensor::from_le_bytes(ty, &[0; 7]), None);
        assert_eq!(Tensor::from_le_bytes(Type::u32([usize::MAX, 2]), &[]), None);
    }
}
