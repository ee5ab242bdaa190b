//! What this CPU is good at.

/// Whether the CPU has instructions for AES, so that AES-GCM is the faster suite; without them
/// ChaCha20 is (RFC 7539, appendix B).
pub fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    // HWCAP2_AES, arch/arm/include/uapi/asm/hwcap.h: ARMv8 cores that run 32-bit code.
    #[cfg(all(target_arch = "arm", target_os = "linux"))]
    return rustix::param::linux_hwcap().1 & 1 != 0;
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "x86",
        target_arch = "aarch64",
        all(target_arch = "arm", target_os = "linux")
    )))]
    return false;
}
