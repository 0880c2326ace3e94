# What a device is, as key=value lines; a key may come again. Runs by any POSIX sh: Android's, busybox, dash.
# targets/probe.py reads them.
say() { [ -n "$2" ] && printf '%s=%s\n' "$1" "$2"; }
word() { [ -r "$1" ] && tr -d '\000' < "$1" 2>/dev/null | head -n 1; }
has() { command -v "$1" >/dev/null 2>&1; }

say kernel "$(uname -sr)"
say machine "$(uname -m)"
say hostname "$(uname -n)"
say tree_model "$(word /proc/device-tree/model)"
[ -r /proc/device-tree/compatible ] && say tree_compatible "$(tr '\000' ' ' < /proc/device-tree/compatible)"
say dmi_vendor "$(word /sys/class/dmi/id/sys_vendor)"
say dmi_product "$(word /sys/class/dmi/id/product_name)"
[ -r /etc/os-release ] && say os "$(. /etc/os-release 2>/dev/null; echo "$PRETTY_NAME")"
has getconf && say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
say tegra "$(word /etc/nv_tegra_release)"

if has getprop; then
  say android "$(getprop ro.build.version.release)"
  say android_sdk "$(getprop ro.build.version.sdk)"
  say brand "$(getprop ro.product.brand)"
  say model "$(getprop ro.product.model)"
  say soc_maker "$(getprop ro.soc.manufacturer)"
  say soc_model "$(getprop ro.soc.model)"
  say platform "$(getprop ro.board.platform)"
  say abis "$(getprop ro.product.cpu.abilist)"
  say egl "$(getprop ro.hardware.egl)"
  say vulkan "$(getprop ro.hardware.vulkan)"
fi

if [ -r /proc/cpuinfo ]; then
  say cpu_model "$(grep -m 1 -i '^model name' /proc/cpuinfo | cut -d: -f2-)"
  say cpu_hardware "$(grep -m 1 '^Hardware' /proc/cpuinfo | cut -d: -f2-)"
  say features "$(grep -m 1 -iE '^(flags|features)' /proc/cpuinfo | cut -d: -f2-)"
  say parts "$(grep -E '^CPU part' /proc/cpuinfo | cut -d: -f2- | tr -d ' \t' | tr '\n' ' ')"
  say n_threads "$(grep -c '^processor' /proc/cpuinfo)"
  say cpu_mhz "$(grep -m 1 -i '^cpu MHz' /proc/cpuinfo | cut -d: -f2-)"
  for key in 'physical id' 'core id'; do
    say "x86 $key" "$(grep -E "^$key" /proc/cpuinfo | cut -d: -f2- | tr -d ' \t' | tr '\n' ' ')"
  done
fi
for policy in /sys/devices/system/cpu/cpufreq/policy*; do
  if [ -d "$policy" ]; then
    say cluster "$(word "$policy/related_cpus");$(word "$policy/cpuinfo_max_freq");$(word "$policy/scaling_max_freq")"
  fi
done

if [ -r /proc/meminfo ]; then
  say memory_kb "$(grep -m 1 '^MemTotal' /proc/meminfo | tr -dc 0-9)"
  say available_kb "$(grep -m 1 '^MemAvailable' /proc/meminfo | tr -dc 0-9)"
fi

say kgsl "$(word /sys/class/kgsl/kgsl-3d0/gpu_model)"
for mali in /sys/class/misc/mali0/device/gpuinfo /sys/devices/platform/*.mali/gpuinfo; do say mali "$(word "$mali")"; done
for library in /vendor/lib64/libOpenCL.so /system/vendor/lib64/libOpenCL.so /usr/lib/aarch64-linux-gnu/libOpenCL.so.1 \
  /usr/lib/x86_64-linux-gnu/libOpenCL.so.1 /usr/lib64/libOpenCL.so.1; do
  [ -e "$library" ] && say opencl "$library"
done
for library in /usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1 /usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1 \
  /usr/lib/x86_64-linux-gnu/libcuda.so.1 /usr/lib64/libcuda.so.1; do
  [ -e "$library" ] && say cuda "$library"
done
if has nvidia-smi; then
  nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | while read -r name; do say nvidia "$name"; done
fi
for driver in /sys/class/drm/renderD*/device/driver; do
  [ -e "$driver" ] && say drm "$(basename "$(readlink -f "$driver")")"
done
:
