# How warm a device is and whether it holds back, as key=value lines; targets/condition.py reads them.
word() { [ -r "$1" ] && head -n 1 "$1" 2>/dev/null; }
for zone in /sys/class/thermal/thermal_zone*; do
  t=$(word "$zone/temp") && [ -n "$t" ] && echo "zone=$(word "$zone/type");$t"
done
for fan in /sys/class/thermal/cooling_device*; do
  s=$(word "$fan/cur_state") && [ -n "$s" ] && echo "cooling=$(word "$fan/type");$s"
done
for sensor in /sys/class/hwmon/hwmon*; do
  case $(word "$sensor/name") in
    coretemp | k10temp | zenpower) t=$(word "$sensor/temp1_input") && echo "zone=$(word "$sensor/name");$t" ;;
  esac
done
n=0
for count in /sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count; do
  c=$(word "$count") && n=$((n + c)) && seen=1
done
[ -n "$seen" ] && echo "throttle_count=$n"
command -v vcgencmd >/dev/null 2>&1 && vcgencmd get_throttled 2>/dev/null | sed 's/^throttled/pi_throttled/'
if command -v dumpsys >/dev/null 2>&1; then
  dumpsys thermalservice 2>/dev/null | grep -m 1 'Thermal Status' | sed 's/.*: */android_status=/'
fi
for policy in /sys/devices/system/cpu/cpufreq/policy*; do
  c=$(word "$policy/scaling_cur_freq") && echo "clock=$(word "$policy/cpuinfo_max_freq");$(word "$policy/scaling_max_freq");$c"
done
:
