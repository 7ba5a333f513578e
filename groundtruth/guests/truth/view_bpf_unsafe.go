package main

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"unsafe"
)

func init() { views["bpf"] = viewBPF }

// viewBPF asks bpf(2) for the programs; offsets are of struct bpf_prog_info.
func viewBPF(emit func(any) error) error {
	types, err := bpfNames("bpf_prog_type", "BPF_PROG_TYPE_")
	if err != nil {
		return err
	}
	holders, pins, err := bpfHeld(bpfProg)
	if err != nil {
		return err
	}
	return bpfObjects(bpfProg, func(o bpfObject) error {
		maps, symbols := make([]uint32, o.u32(52)+1), make([]uint64, 1)
		row := map[string]any{
			"id": o.u32(4), "type": types[o.u32(0)], "tag": hex.EncodeToString(o.info[8:16]), "name": orNil(o.text(64)),
			"insns": o.u32(20) / 8, "since_boot": exactSeconds(o.u64(40)), "uid": o.u32(48), "gpl": o.u32(84)&1 != 0,
			"jited": o.u32(16) != 0, "jited_size": orNil(o.u32(16)), "functions": max(o.u32(104), 1), "btf_id": orNil(o.u32(128)),
			"run_count": o.u64(200), "run_time": exactSeconds(o.u64(192)), "verified_insns": orNil(o.u32(216)),
			"holders": listed(holders[o.u32(4)]), "pinned": listed(pins[o.u32(4)]),
		}
		n := o.u32(52)
		again := bpfObject{make([]byte, bpfInfoSize), o.fd}
		binary.LittleEndian.PutUint32(again.info[52:], n)
		again.put(56, unsafe.Pointer(&maps[0]))
		binary.LittleEndian.PutUint32(again.info[104:], 1)
		again.put(112, unsafe.Pointer(&symbols[0]))
		if err := again.look(); err != nil {
			return err
		}
		row["maps"] = listed(maps[:n])
		if symbols[0] != 0 {
			row["code"] = fmt.Sprintf("%#x", symbols[0])
		}
		return emit(row)
	})
}

// exactSeconds is a number of seconds without an exponent, as outsight prints it.
func exactSeconds(ns uint64) json.Number {
	return json.Number(strconv.FormatFloat(float64(ns)/1e9, 'f', -1, 64))
}
