package main

import (
	"os"
	"strconv"
)

func init() { views["bpf_maps"] = viewBPFMaps }

// viewBPFMaps asks bpf(2) for the maps; offsets are of struct bpf_map_info.
func viewBPFMaps(emit func(any) error) error {
	types, err := bpfNames("bpf_map_type", "BPF_MAP_TYPE_")
	if err != nil {
		return err
	}
	holders, pins, err := bpfHeld(bpfMap)
	if err != nil {
		return err
	}
	return bpfObjects(bpfMap, func(o bpfObject) error {
		text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(o.fd))
		if err != nil {
			return err
		}
		frozen, _ := bpfLine(text, "frozen")
		return emit(map[string]any{
			"id": o.u32(4), "type": types[o.u32(0)], "name": orNil(o.text(24)), "key_size": o.u32(8), "value_size": o.u32(12),
			"max_entries": o.u32(16), "flags": o.u32(20), "btf_id": orNil(o.u32(64)), "frozen": frozen != 0,
			"holders": listed(holders[o.u32(4)]), "pinned": listed(pins[o.u32(4)]),
		})
	})
}
