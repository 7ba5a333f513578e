package main

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

func init() { views["neighbours"] = viewNeighbours }

var (
	neighbourStates = map[int]string{0: "INCOMPLETE", 1: "REACHABLE", 2: "STALE", 3: "DELAY", 4: "PROBE", 5: "FAILED", 6: "NOARP", 7: "PERMANENT"}
	neighbourFlags  = map[int]string{
		0: "USE", 1: "SELF", 2: "MASTER", 3: "PROXY", 4: "EXT_LEARNED", 5: "OFFLOADED", 6: "STICKY", 7: "ROUTER",
		8: "MANAGED", 9: "LOCKED", 10: "EXT_VALIDATED",
	}
)

// viewNeighbours reports what rtnetlink says, proxies too.
func viewNeighbours(emit func(any) error) error {
	return eachNetNS(func(net uint64) error {
		links, err := rtLinks()
		if err != nil {
			return err
		}
		for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
			for _, flags := range []byte{0, unix.NTF_PROXY} {
				ask := make([]byte, unix.SizeofNdMsg)
				ask[0], ask[10] = family, flags
				err := rtnlDump(unix.RTM_GETNEIGH, ask, func(m []byte) error {
					if m[0] != family {
						return nil // of all families, where the kernel does not know this one
					}
					a := rtAttributes(m[unix.SizeofNdMsg:])
					const protocol, flagsExt = 12, 15 // NDA_PROTOCOL, NDA_FLAGS_EXT
					state := uint64(binary.NativeEndian.Uint16(m[8:]))
					all := uint64(m[10]) | a.number(flagsExt)<<8
					return emit(map[string]any{
						"net_ns": net, "address": a.ip(unix.NDA_DST), "mac": a.mac(unix.NDA_LLADDR),
						"interface": links[uint64(binary.NativeEndian.Uint32(m[4:]))],
						"state":     rtBits(state, neighbourStates), "flags": rtBits(all, neighbourFlags),
						"protocol": rtProtocol(a.number(protocol)),
					})
				})
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// rtProtocol is who made a thing; null for nobody.
func rtProtocol(n uint64) any {
	if n == 0 {
		return nil
	}
	return rtNamed(n, rtProtocols)
}
