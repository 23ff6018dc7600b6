# Builds and installs libtidewire: the shared and the static library, the headers for C and C++, and what pkg-config and
# CMake find them by. Everything else is built by cargo.
#
#   make && sudo make install
#
# PREFIX, LIBDIR, INCLUDEDIR   where it is used (/usr/local, its lib and include)
# DESTDIR                      put before every path, to make a package
# PROFILE                      of cargo: release, or dev to build quickly

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
PROFILE ?= release
CARGO ?= cargo
INSTALL ?= install

version := $(shell sed -n '/^\[workspace.package\]/,/^$$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
soname := $(shell sed -n 's/.*-soname,\(libtidewire\.so\.[0-9]*\)".*/\1/p' ffi/build.rs)
repository := $(shell sed -n '/^\[workspace.package\]/,/^$$/s/^repository = "\(.*\)"/\1/p' Cargo.toml)
target := $(abspath $(or $(CARGO_TARGET_DIR),target))/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# What a program that is linked with libtidewire.a needs besides; written with each build.
libs := $(target)/libtidewire.libs

to := $(DESTDIR)$(LIBDIR)
headers := $(DESTDIR)$(INCLUDEDIR)
cmake := $(to)/cmake/Tidewire

fill = sed -e 's|@VERSION@|$(version)|g' -e 's|@SONAME@|$(soname)|g' -e 's|@PREFIX@|$(PREFIX)|g' \
  -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' -e 's|@URL@|$(repository)|g' \
  -e "s|@LIBS@|$$(cat $(libs))|g" \
  -e "s|@TO_INCLUDEDIR@|$$(realpath -m --relative-to=$(LIBDIR)/cmake/Tidewire $(INCLUDEDIR))|g"

.PHONY: all install uninstall
all:
	$(CARGO) rustc --quiet --locked --profile $(PROFILE) -p tidewire-ffi --lib -- --print native-static-libs=$(libs)

install:
	@test -e $(libs) || { echo "nothing is built for PROFILE=$(PROFILE): run make first" >&2; exit 1; }
	$(INSTALL) -d $(to)/pkgconfig $(cmake) $(headers)
	$(INSTALL) -m 644 include/tidewire.h include/tidewire.hpp $(headers)
	$(INSTALL) -m 755 $(target)/libtidewire.so $(to)/libtidewire.so.$(version)
	ln -sf libtidewire.so.$(version) $(to)/$(soname)
	ln -sf $(soname) $(to)/libtidewire.so
	$(INSTALL) -m 644 $(target)/libtidewire.a $(to)
	$(fill) ffi/packaging/tidewire.pc.in > $(to)/pkgconfig/tidewire.pc
	$(fill) ffi/packaging/TidewireConfig.cmake.in > $(cmake)/TidewireConfig.cmake
	$(fill) ffi/packaging/TidewireConfigVersion.cmake.in > $(cmake)/TidewireConfigVersion.cmake

uninstall:
	rm -f $(headers)/tidewire.h $(headers)/tidewire.hpp $(to)/libtidewire.so* $(to)/libtidewire.a $(to)/pkgconfig/tidewire.pc
	rm -rf $(cmake)
