################################################################################
#
# pskgate
#
# Untested: no Buildroot tree has built it yet. Put this folder into package/pskgate, name it in
# package/Config.in, and PSKGATE_SITE after where the source is.
#
################################################################################

PSKGATE_VERSION = 0.1.0
PSKGATE_SITE = $(TOPDIR)/../pskgate
PSKGATE_SITE_METHOD = local
PSKGATE_LICENSE = MIT
PSKGATE_LICENSE_FILES = LICENSE
PSKGATE_DEPENDENCIES = host-pkgconf openssl

# The target's OpenSSL, found by openssl-sys through its own variables.
PSKGATE_CARGO_ENV = \
	OPENSSL_DIR=$(STAGING_DIR)/usr \
	OPENSSL_NO_VENDOR=1

define PSKGATE_INSTALL_CONFIGURATION
	$(INSTALL) -D -m 0640 $(@D)/dist/debian/pskgate.toml \
		$(TARGET_DIR)/etc/pskgate/pskgate.toml
endef
PSKGATE_POST_INSTALL_TARGET_HOOKS += PSKGATE_INSTALL_CONFIGURATION

define PSKGATE_USERS
	pskgate -1 pskgate -1 * - - - TLS-PSK tunnels
endef

define PSKGATE_PERMISSIONS
	/etc/pskgate d 750 0 pskgate - - - - -
	/etc/pskgate/pskgate.toml f 640 0 pskgate - - - - -
endef

define PSKGATE_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/dist/busybox/S50pskgate \
		$(TARGET_DIR)/etc/init.d/S50pskgate
endef

define PSKGATE_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 -t $(TARGET_DIR)/usr/lib/systemd/system \
		$(@D)/dist/systemd/*
endef

$(eval $(cargo-package))
