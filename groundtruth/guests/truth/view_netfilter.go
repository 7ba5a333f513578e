package main

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

func init() {
	views["netfilter"] = func(emit func(any) error) error {
		k, err := netfilterSymbols()
		if err != nil {
			return err
		}
		return eachNetNS(func(net uint64) error {
			h := nfTeller{net: net, symbols: k, emit: emit}
			err := h.dump()
			if err != nil && !errors.Is(err, unix.EINVAL) { // nobody answers for this part of nfnetlink
				return err
			}
			h.listed = err == nil
			return h.known()
		})
	}
}

// nfTeller reports the netfilter hooks of the namespace that our thread is in.
type nfTeller struct {
	net     uint64
	symbols kernelSymbols
	listed  bool // the kernel told of all that are hooked in
	emit    func(any) error
}

var nfInet = []string{"prerouting", "input", "forward", "output", "postrouting"}

// nfFamilies are NFPROTO_ numbers, with the hooks of each by number.
var nfFamilies = []struct {
	name   string
	number uint8
	hooks  []string
}{
	{"ip", 2, nfInet}, {"ip6", 10, nfInet}, {"bridge", 7, nfInet}, {"arp", 3, []string{"input", "output", "forward"}},
}

// dump asks nfnetlink_hook for all of them.
func (h *nfTeller) dump() error {
	for _, f := range nfFamilies {
		for number, hook := range f.hooks {
			if err := h.hook(f.number, uint32(number), map[string]any{"family": f.name, "hook": hook, "device": nil}); err != nil {
				return err
			}
		}
	}
	links, err := rtLinks()
	if err != nil {
		return err
	}
	for _, index := range slices.Sorted(maps.Keys(links)) {
		for number, hook := range []string{"ingress", "egress"} {
			const netdev = 5
			if err := h.hook(netdev, uint32(number), map[string]any{"family": "netdev", "hook": hook, "device": links[index]}); err != nil {
				return err
			}
		}
	}
	return nil
}

// hook asks for the functions of one, in the order in which they run. like has the cells that
// all of them share.
func (h *nfTeller) hook(family uint8, number uint32, like map[string]any) error {
	const (
		kind                                          = 12 << 8 // NFNL_SUBSYS_HOOK, NFNL_MSG_HOOK_GET
		hooknum, priority, dev, function, owner, info = 1, 2, 3, 4, 5, 6
		desc, infoType                                = 1, 2
		tableName, tableFamily, chainName             = 1, 2, 3
		progID                                        = 1
	)
	ask := []byte{family, 0, 0, 0} // struct nfgenmsg
	ask = binary.NativeEndian.AppendUint16(ask, 8)
	ask = binary.NativeEndian.AppendUint16(ask, hooknum)
	ask = binary.BigEndian.AppendUint32(ask, number)
	if name, ok := like["device"].(string); ok {
		ask = binary.NativeEndian.AppendUint16(ask, uint16(4+len(name)+1))
		ask = binary.NativeEndian.AppendUint16(ask, dev)
		ask = append(append(ask, name...), 0)
		ask = append(ask, make([]byte, -len(ask)&3)...)
	}
	position := 0
	return netlinkDump(unix.NETLINK_NETFILTER, kind, ask, func(m []byte) error {
		a := rtAttributes(m[4:])
		row := maps.Clone(like)
		row["net_ns"], row["position"], row["forged"], row["caller"] = h.net, position, false, nil
		row["priority"] = int32(a.big(priority))
		position++
		module, _ := a.text(owner).(string)
		name, _ := a.text(function).(string)
		h.symbols.tell(row, name, module)
		row["type"], row["table"], row["chain"], row["prog_id"] = nil, nil, nil, nil
		what := a.nest(info)
		of := what.nest(desc)
		switch what.big(infoType) {
		case 1:
			row["type"] = "nf_tables"
		case 2:
			row["type"], row["prog_id"] = "bpf", of.big(progID)
		case 3:
			row["type"] = "flowtable"
		}
		if table, ok := of.text(tableName).(string); ok && row["type"] != "bpf" {
			row["table"], row["chain"] = nftFamilyNames[uint8(of.number(tableFamily))]+" "+table, of.text(chainName)
		}
		return h.emit(row)
	})
}

// nftFamilyNames are nft's words for NFPROTO_ numbers.
var nftFamilyNames = map[uint8]string{1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
