//! The device that this build computes on.

use burn::tensor::Device;

/// The device: CUDA or WGPU when the crate was built with that feature (they are untested for
/// lack of the hardware), otherwise burn's portable CPU device `flex`. Autodiff is on.
pub fn default_device() -> Device {
    #[cfg(feature = "cuda")]
    let device = Device::cuda(0);
    #[cfg(all(feature = "wgpu", not(feature = "cuda")))]
    let device = Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
    #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
    let device = Device::flex();
    device.autodiff()
}

/// Its name, for reports.
pub fn device_name() -> &'static str {
    if cfg!(feature = "cuda") {
        "cuda"
    } else if cfg!(feature = "wgpu") {
        "wgpu"
    } else {
        "flex (CPU)"
    }
}
