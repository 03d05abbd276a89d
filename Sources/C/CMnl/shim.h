#pragma once
// The one library call that netlink needs; installed by rootfs/setup into /usr/local.
#include <libmnl/libmnl.h>
