package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// tcSide is where a program of tc runs: "ingress", "egress", or a queueing discipline's
// handle, "1:".
type tcSide struct {
	index uint64 // of the interface
	name  string
}

// tcSides are cells of programs, in the order in which they run.
type tcSides map[tcSide][]string

// of is the cell of an interface: null for none, and where a classifier's programs cannot
// be known from outside.
func (t tcSides) of(index uint64) any {
	all := append(slices.Clone(t[tcSide{index, "ingress"}]), t[tcSide{index, "egress"}]...)
	for _, s := range slices.SortedFunc(maps.Keys(t), func(a, b tcSide) int { return len(a.name) - len(b.name) }) {
		if s.index == index && s.name != "ingress" && s.name != "egress" {
			all = append(all, t[s]...)
		}
	}
	if slices.Contains(all, "untold") {
		return nil
	}
	return nilIfNone(all)
}

// tcPrograms asks for the filters of every queueing discipline; offsets are of struct
// tcmsg.
func tcPrograms(programs map[uint64]string) (tcSides, error) {
	const ingress, clsactIngress, clsactEgress, size = 0xffff_0000, 0xffff_fff2, 0xffff_fff3, 20
	type place struct {
		side   tcSide
		parent uint32
	}
	var places []place
	err := rtnlDump(unix.RTM_GETQDISC, make([]byte, size), func(m []byte) error {
		index, handle := uint64(binary.NativeEndian.Uint32(m[4:])), binary.NativeEndian.Uint32(m[8:])
		switch kind := rtAttributes(m[size:]).text(unix.TCA_KIND); {
		case kind == "clsact":
			places = append(places, place{tcSide{index, "ingress"}, clsactIngress}, place{tcSide{index, "egress"}, clsactEgress})
		case kind == "ingress":
			places = append(places, place{tcSide{index, "ingress"}, ingress})
		case handle != 0:
			places = append(places, place{tcSide{index, fmt.Sprintf("%x:", handle>>16)}, handle})
		}
		return nil
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return tcSides{}, nil // without CONFIG_NET_SCHED
	}
	if err != nil {
		return nil, err
	}
	sides := tcSides{}
	for _, p := range places {
		ask := make([]byte, size)
		binary.NativeEndian.PutUint32(ask[4:], uint32(p.side.index))
		binary.NativeEndian.PutUint32(ask[12:], p.parent)
		err := rtnlDump(unix.RTM_GETTFILTER, ask, func(m []byte) error {
			a := rtAttributes(m[size:])
			if kind, _ := a.text(unix.TCA_KIND).(string); a.has(unix.TCA_OPTIONS) {
				sides[p.side] = append(sides[p.side], tcFilter(p.side.name, kind, a.nest(unix.TCA_OPTIONS), programs)...)
			}
			return nil
		})
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			return nil, err // those mean that there can be no filters
		}
	}
	return sides, nil
}

// tcFilter are the programs of one filter: its own, then those of its actions.
func tcFilter(side, kind string, options rtAttrs, programs map[uint64]string) []string {
	const direct, ops, flags, id = 1, 5, 8, 11 // TCA_BPF_
	actions := map[string]uint16{"bpf": 1, "matchall": 2}
	one := func(has bool, id uint64, how string) []string {
		switch {
		case !has:
			return nil
		case id == 0:
			return []string{fmt.Sprintf("%s bytecode %s", side, how)}
		}
		return []string{fmt.Sprintf("%s %d %s %s", side, id, programs[id], how)}
	}
	var all []string
	if kind == "bpf" {
		how := "cls_bpf"
		if options.number(flags)&direct != 0 {
			how += " direct-action"
		}
		all = one(options.has(id) || options.has(ops), options.number(id), how)
	}
	if _, known := actions[kind]; !known {
		return nil
	}
	if _, err := os.Stat("/sys/kernel/btf/cls_bpf"); err != nil {
		return []string{"untold"}
	}
	in := options.nest(actions[kind])
	for _, i := range slices.Sorted(maps.Keys(in)) {
		const actKind, actOptions, actOps, actID = 1, 2, 4, 9
		act := rtAttributes(in[i])
		if o := act.nest(actOptions); act.text(actKind) == "bpf" {
			all = append(all, one(true, o.number(actID), "act_bpf")...)
		}
	}
	return all
}
