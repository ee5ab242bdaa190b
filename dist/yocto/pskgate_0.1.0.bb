SUMMARY = "TLS-PSK tunnel proxy: a plain port, reached only by those who hold a key"
LICENSE = "MIT"
# Untested: no Yocto build has used it yet. `bitbake -c update_crates pskgate` writes pskgate-crates.inc from
# Cargo.lock; then fill in the checksum of LICENSE and where the source is.
LIC_FILES_CHKSUM = "file://LICENSE;md5=${PSKGATE_LICENSE_MD5}"

SRC_URI = "file://${BPN}-${PV}.tar.gz"

inherit cargo cargo-update-recipe-crates pkgconfig systemd useradd
include pskgate-crates.inc

DEPENDS += "openssl"
export OPENSSL_NO_VENDOR = "1"

USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --user-group --no-create-home --shell /sbin/nologin pskgate"

SYSTEMD_SERVICE:${PN} = "pskgate.service"
# A configuration comes first.
SYSTEMD_AUTO_ENABLE = "disable"

do_install:append() {
    install -d -m 0750 -g pskgate ${D}${sysconfdir}/pskgate
    install -m 0640 -g pskgate ${S}/dist/debian/pskgate.toml ${D}${sysconfdir}/pskgate/
    install -d ${D}${systemd_system_unitdir}
    install -m 0644 ${S}/dist/systemd/* ${D}${systemd_system_unitdir}/
    if ${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', 'true', 'false', d)}; then
        install -d ${D}${sysconfdir}/init.d
        install -m 0755 ${S}/dist/busybox/S50pskgate ${D}${sysconfdir}/init.d/pskgate
    fi
}

FILES:${PN} += "${systemd_system_unitdir}"
CONFFILES:${PN} = "${sysconfdir}/pskgate/pskgate.toml"
