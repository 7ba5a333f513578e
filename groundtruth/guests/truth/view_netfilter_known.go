package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// kernelSymbols are where the functions of the kernel and of its modules are, by module
// (the kernel has none) and name; 0: there are several.
type kernelSymbols map[[2]string]uint64

func netfilterSymbols() (kernelSymbols, error) {
	k := kernelSymbols{}
	err := eachSymbol(func(a uint64, kind, name, module string) error {
		if !strings.Contains("tTwW", kind) {
			return nil
		}
		key := [2]string{module, name}
		if _, twice := k[key]; twice {
			a = 0
		}
		k[key] = a
		return nil
	})
	return k, err
}

// tell fills the cells of a row that say which function it is.
func (k kernelSymbols) tell(row map[string]any, name, module string) {
	row["function_symbol"], row["function_owner"] = name, "kernel"
	if module != "" {
		row["function_owner"] = "[" + module + "]"
	}
	if a := k[[2]string{module, name}]; a != 0 {
		row["function"] = fmt.Sprintf("%#x", a)
	}
}

// first is the first of some functions of modules ("module:name") that this kernel has.
func (k kernelSymbols) first(names ...string) (name, module string) {
	for _, n := range names {
		module, name, _ = strings.Cut(n, ":")
		if _, ok := k[[2]string{module, name}]; ok {
			return name, module
		}
	}
	return "", ""
}

// nfNAT are the functions of nf_nat that are hooked in where a table or chain of NAT is, and
// the priorities that iptables' tables have among those that they call.
var nfNAT = []struct {
	family, hook string
	priority     int
	functions    []string
}{
	{"ip", "prerouting", -100, []string{"nf_nat:nf_nat_ipv4_pre_routing", "nf_nat:nf_nat_ipv4_in"}},
	{"ip", "postrouting", 100, []string{"nf_nat:nf_nat_ipv4_out"}},
	{"ip", "output", -100, []string{"nf_nat:nf_nat_ipv4_local_fn"}},
	{"ip", "input", 100, []string{"nf_nat:nf_nat_ipv4_local_in", "nf_nat:nf_nat_ipv4_fn"}},
	{"ip6", "prerouting", -100, []string{"nf_nat:nf_nat_ipv6_in"}},
	{"ip6", "postrouting", 100, []string{"nf_nat:nf_nat_ipv6_out"}},
	{"ip6", "output", -100, []string{"nf_nat:nf_nat_ipv6_local_fn"}},
	{"ip6", "input", 100, []string{"nf_nat:nf_nat_ipv6_fn"}},
}

// known reports those that must be there because of what is listed else: chains of
// nf_tables and tables of iptables. What NAT calls is in no list of hooks at all; and
// kernels without nfnetlink_hook have none.
func (h *nfTeller) known() error {
	nat := map[string]bool{}
	if err := h.knownChains(nat); err != nil {
		return err
	}
	if err := h.knownTables(nat); err != nil {
		return err
	}
	for _, n := range nfNAT {
		if nat[n.family] {
			if err := h.one(n.family, n.hook, nil, n.priority, nil, n.functions...); err != nil {
				return err
			}
		}
	}
	return nil
}

// one reports one function: the first of those that this kernel has. more are further cells.
func (h *nfTeller) one(family, hook string, device any, priority int, more map[string]any, functions ...string) error {
	name, module := h.symbols.first(functions...)
	if name == "" {
		return fmt.Errorf("netfilter: this kernel has none of %v", functions)
	}
	row := map[string]any{"net_ns": h.net, "family": family, "hook": hook, "device": device, "priority": priority, "forged": false, "caller": nil}
	maps.Copy(row, more)
	if h.listed && row["caller"] == nil {
		return nil
	}
	h.symbols.tell(row, name, module)
	return h.emit(row)
}

// called reports one that NAT calls. Outside cannot see it where there is no BTF of modules.
func (h *nfTeller) called(family, hook string, priority int, more map[string]any, functions ...string) error {
	if !kernelSince(5, 11) {
		return nil
	}
	for _, n := range nfNAT {
		if n.family == family && n.hook == hook {
			all := map[string]any{"type": nil, "table": nil, "chain": nil, "prog_id": nil}
			maps.Copy(all, more)
			all["caller"], _ = h.symbols.first(n.functions...)
			return h.one(family, hook, nil, priority, all, functions...)
		}
	}
	return fmt.Errorf("netfilter: NAT of %s at %s", family, hook)
}

// knownChains reports the base chains that nft lists here; nat gets the families of those of
// NAT.
func (h *nfTeller) knownChains(nat map[string]bool) error {
	text, err := nftList("-y")
	if err != nil {
		return err
	}
	typed := kernelSince(5, 14) // hooks say who registered them, and there is BTF of modules
	var family, table, chain string
	var chains []func() error
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		switch {
		case len(w) == 4 && w[0] == "table":
			family, table = w[1], w[2]
		case len(w) == 3 && w[0] == "chain":
			chain = w[1]
		}
		m := nftHook.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			continue
		}
		priority, err := strconv.Atoi(m[4])
		if err != nil {
			return fmt.Errorf("nft says %q: %w", line, err)
		}
		var more map[string]any
		if typed {
			more = map[string]any{"type": "nf_tables", "table": family + " " + table, "chain": chain}
		}
		for _, f := range nftHooked(family, m[2]) {
			if m[1] == "nat" {
				nat[f] = true
				chains = append(chains, func() error { return h.called(f, m[2], priority, more, "nft_chain_nat:nft_nat_do_chain") })
				continue
			}
			function := "nf_tables:" + nftFunction(family, f, m[1], m[2])
			chains = append(chains, func() error { return h.one(f, m[2], orNil(m[3]), priority, more, function) })
		}
	}
	// Among those of one priority the last that came runs first.
	for _, tell := range slices.Backward(chains) {
		if err := tell(); err != nil {
			return err
		}
	}
	return nil
}

// nftHooked are the families of hooks of a chain.
func nftHooked(family, hook string) []string {
	switch {
	case family == "inet" && hook == "ingress":
		return []string{"netdev"}
	case family == "inet":
		return []string{"ip", "ip6"}
	}
	return []string{family}
}

// nftFunction is what nf_tables hooks in for a chain of a family, at a hook of another.
func nftFunction(family, hooked, kind, hook string) string {
	version := map[string]string{"ip": "4", "ip6": "6"}
	switch {
	case kind == "route" && family == "inet":
		return "nf_route_table_inet"
	case kind == "route":
		return "nf_route_table_hook" + version[hooked]
	case family == "inet" && hook == "ingress":
		return "nft_do_chain_inet_ingress"
	case version[family] != "":
		return "nft_do_chain_ipv" + version[family]
	}
	return "nft_do_chain_" + family
}

// kernelSince says that the kernel has at least a version.
func kernelSince(major, minor int) bool {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	var a, b int
	if _, scan := fmt.Sscanf(string(release), "%d.%d", &a, &b); err != nil || scan != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

// xtPriorities are at which priority each table of iptables is hooked in (enum
// nf_ip_hook_priorities), and where.
var xtPriorities = map[string]struct {
	priority int
	hooks    []string
}{
	"filter": {0, []string{"input", "forward", "output"}}, "security": {50, []string{"input", "forward", "output"}},
	"mangle": {-150, nfInet}, "raw": {-300, []string{"prerouting", "output"}},
}

// knownTables reports iptables' tables.
func (h *nfTeller) knownTables(nat map[string]bool) error {
	for _, f := range []struct{ file, family, module, common string }{
		{"ip_tables_names", "ip", "iptable_", "ip_tables:ipt_do_table"},
		{"ip6_tables_names", "ip6", "ip6table_", "ip6_tables:ip6t_do_table"},
		{"arp_tables_names", "arp", "arptable_", "arp_tables:arpt_do_table"},
	} {
		text, err := os.ReadFile("/proc/thread-self/net/" + f.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for table := range strings.FieldsSeq(string(text)) {
			if table == "nat" {
				nat[f.family] = true
				for _, n := range nfNAT {
					if n.family != f.family {
						continue
					}
					if err := h.called(n.family, n.hook, n.priority, nil, f.module+"nat:"+f.module+"nat_do_chain", f.common); err != nil {
						return err
					}
				}
				continue
			}
			x, ok := xtPriorities[table]
			if !ok {
				return fmt.Errorf("netfilter: %s has a table %q", f.file, table)
			}
			module := f.module + table
			for _, hook := range x.hooks {
				if err := h.one(f.family, hook, nil, x.priority, nil, module+":"+module+"_hook", f.common); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
