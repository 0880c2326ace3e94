# Energy and power while a program runs; targets/energy.py reads what these print.
# energy_source: how this device tells; energy_now: one reading.
word() { [ -r "$1" ] && head -n 1 "$1" 2>/dev/null; }
ina=$(ls -d /sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon* 2>/dev/null | head -n 1)
battery=/sys/class/power_supply/battery
if word /sys/class/powercap/intel-rapl:0/energy_uj >/dev/null; then
  energy_source=rapl
elif [ -n "$ina" ] && word "$ina/in1_input" >/dev/null; then
  energy_source=ina
elif [ "$(word $battery/status)" = Discharging ] && word $battery/current_now >/dev/null; then
  energy_source=battery
else
  energy_source=none
fi
energy_now() {
  case $energy_source in
    rapl)
      for package in /sys/class/powercap/intel-rapl:?; do
        echo "energy_uj=$(word "$package/energy_uj");$(word "$package/max_energy_range_uj")"
      done
      ;;
    ina) echo "power_mv_ma=$(word "$ina/in1_input");$(word "$ina/curr1_input")" ;;
    battery) echo "power_uv_ua=$(word $battery/voltage_now);$(word $battery/current_now)" ;;
  esac
}
