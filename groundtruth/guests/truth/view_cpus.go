package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

func init() { views["cpus"] = tellCPUs }

// tellCPUs reports the processors by /sys/devices/system/cpu, and those that are
// online by /proc/cpuinfo.
func tellCPUs(emit func(any) error) error {
	rows := map[int]map[string]any{}
	for _, what := range []string{"possible", "present", "online"} {
		set, err := cpuSet(what)
		if err != nil {
			return err
		}
		for _, n := range set {
			if rows[n] == nil {
				rows[n] = map[string]any{"cpu": n, "online": false, "present": false, "possible": false}
			}
			rows[n][what] = true
		}
	}
	var row map[string]any
	err := lines("/proc/cpuinfo", func(line string) error {
		key, value, _ := strings.Cut(line, ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if key == "processor" {
			n, err := strconv.Atoi(value)
			row = rows[n]
			if err != nil || row == nil {
				return fmt.Errorf("processor %q", value)
			}
		}
		return tellCPU(row, key, value)
	})
	if err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(rows)) {
		if err := topology(n, rows[n]); err != nil {
			return err
		}
		if err := emit(rows[n]); err != nil {
			return err
		}
	}
	return nil
}

// cpuSet are the processors that are possible, present or online.
func cpuSet(what string) ([]int, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/" + what)
	if err != nil {
		return nil, err
	}
	set, err := numbersIn(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return set, nil
}

// tellCPU takes one line of /proc/cpuinfo.
func tellCPU(row map[string]any, key, value string) error {
	number := func(column string) error {
		n, err := strconv.ParseInt(value, 0, 64)
		row[column] = n
		return err
	}
	switch key {
	case "vendor_id":
		row["vendor"] = value
	case "cpu family":
		return number("family")
	case "model", "stepping":
		return number(key)
	case "apicid":
		return number("apic")
	case "physical id":
		return number("package")
	case "core id":
		return number("core")
	case "model name":
		row["model_name"] = value
	case "microcode":
		row["microcode"] = value
	case "cpu MHz":
		khz, err := strconv.ParseUint(strings.Replace(value, ".", "", 1), 10, 64) // three decimals
		row["khz"] = khz
		return err
	case "cache size":
		n, err := strconv.ParseInt(strings.TrimSuffix(value, " KB"), 10, 64)
		row["cache"] = n << 10
		return err
	case "flags", "bugs":
		row[key] = strings.Fields(value)
	case "address sizes":
		var physical, virtual int
		if _, err := fmt.Sscanf(value, "%d bits physical, %d bits virtual", &physical, &virtual); err != nil {
			return fmt.Errorf("%q: %w", value, err)
		}
		row["phys_bits"], row["virt_bits"] = physical, virtual
	}
	return nil
}

// topology adds what only sysfs reports.
func topology(n int, row map[string]any) error {
	b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/die_id", n))
	if err != nil {
		return nil //nolint:nilerr // offline, or a kernel without dies
	}
	row["die"], err = strconv.Atoi(strings.TrimSpace(string(b)))
	return err
}

// numbersIn are the numbers of a list such as 0-3,5.
func numbersIn(list string) (all []int, err error) {
	for part := range strings.SplitSeq(list, ",") {
		if part == "" {
			continue
		}
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		a, err1 := strconv.Atoi(low)
		b, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%q is no list of numbers", list)
		}
		for n := a; n <= b; n++ {
			all = append(all, n)
		}
	}
	return all, nil
}
