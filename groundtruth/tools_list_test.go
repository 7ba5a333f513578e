package groundtruth

import (
	"cmp"
	"strings"
	"testing"
)

var toolCases = []toolCase{
	{
		name: "lsmod", command: "lsmod", view: "modules",
		told: func(_ *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for line := range strings.Lines(out) {
				f := strings.Fields(line)
				if len(f) < 3 || f[0] == "Module" {
					continue
				}
				rows[f[0]] = cells{"size": f[1], "refcount": f[2], "used_by": ""}
				if len(f) > 3 {
					rows[f[0]]["used_by"] = sorted(f[3])
				}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			c := some(row, "size", "refcount", "used_by")
			c["used_by"] = sorted(c["used_by"])
			return cell(row, "name"), c
		},
	},
	{
		name: "findmnt", command: "findmnt --json -o ID,PARENT,TARGET,SOURCE,FSTYPE,MAJ:MIN,FSROOT", view: "mounts",
		told: func(t *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for _, m := range parseObjects(t, out) {
				if m["id"] != nil {
					source, _, _ := strings.Cut(cell(m, "source"), "[") // a part of the file system
					rows[cell(m, "id")] = cells{
						"parent_id": cell(m, "parent"), "mount_point": cell(m, "target"), "source": source,
						"type": cell(m, "fstype"), "device": cell(m, "maj:min"), "root": cell(m, "fsroot"),
					}
				}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			if cell(row, "first_pid") != "1" || cell(row, "mount_id") == "1" || cell(row, "type") == "rootfs" { // below all: the second since Linux 7.0
				return "", nil
			}
			return cell(row, "mount_id"), some(row, "parent_id", "mount_point", "source", "type", "device", "root")
		},
	},
	{
		name: "lsns", command: "lsns --json -o NS,TYPE,PID", view: "namespaces",
		told: func(t *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for _, n := range parseObjects(t, out) {
				if n["ns"] != nil && cell(n, "pid") != "" && cell(n, "pid") != "0" {
					rows[cell(n, "type")+" "+cell(n, "ns")] = cells{"first_pid": cell(n, "pid")}
				}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			if cell(row, "first_pid") == "" || cell(row, "first_pid") == "0" {
				return "", nil // nobody is in it
			}
			return cell(row, "type") + " " + cell(row, "inode"), some(row, "first_pid")
		},
	},
	{
		name: "swapon", command: "swapon --show=NAME,TYPE,SIZE,USED,PRIO --bytes --raw --noheadings", view: "swaps",
		told: func(_ *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); len(f) == 5 {
					rows[f[0]] = cells{"type": f[1], "size": f[2], "used": f[3], "priority": f[4]}
				}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			return cell(row, "path"), some(row, "type", "size", "used", "priority")
		},
	},
	{
		name: "machinectl", view: "containers",
		command: `machinectl list --no-legend --no-pager | while read -r name rest; do machinectl show $name -p Name -p Leader -p Service -p Class; done`,
		told: func(_ *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for machine := range strings.SplitSeq("\n"+out, "\nName=") {
				name, rest, _ := strings.Cut(machine, "\n")
				if strings.Contains(rest, "Class=container") {
					_, service, _ := strings.Cut(rest, "Service=")
					service, _, _ = strings.Cut(service, "\n")
					rows[name] = cells{"runtime": strings.TrimPrefix(service, "systemd-")}
				}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			if cell(row, "runtime") != "nspawn" {
				return "", nil // no other registers itself
			}
			return cell(row, "id"), some(row, "runtime")
		},
	},
	{
		name: "systemctl", command: "systemctl show -p MainPID -p ControlGroup '*.service'", view: "ps",
		told: func(_ *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for unit := range strings.SplitSeq(out, "\n\n") {
				var pid, group string
				for line := range strings.Lines(unit) {
					key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
					switch key {
					case "MainPID":
						pid = value
					case "ControlGroup":
						group = value
					}
				}
				if pid != "" && pid != "0" && group != "" && !strings.HasSuffix(group, "outsight-agent.service") {
					rows[pid] = cells{"service": group}
				}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			group := cell(row, "cgroup")
			at := strings.Index(group, ".service")
			if at < 0 || cell(row, "ppid") != "1" { // its main process, and not what that began
				return "", nil
			}
			group = group[:at+len(".service")]
			if strings.HasSuffix(group, "outsight-agent.service") {
				return "", nil // what tests begin is left to process 1
			}
			return cell(row, "pid"), cells{"service": group}
		},
	},
	{
		name: "bpftool prog", command: "bpftool -j prog", view: "bpf",
		told: func(t *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for _, p := range parseObjects(t, out) {
				rows[cell(p, "id")] = cells{"type": cell(p, "type"), "tag": cell(p, "tag"), "name": short(cell(p, "name")), "maps": cell(p, "map_ids"), "uid": cell(p, "uid")}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			return cell(row, "id"), some(row, "type", "tag", "name", "maps", "uid")
		},
	},
	{
		name: "bpftool map", command: "bpftool -j map", view: "bpf_maps",
		told: func(t *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for _, m := range parseObjects(t, out) {
				rows[cell(m, "id")] = cells{
					"type": cell(m, "type"), "name": cell(m, "name"), "key_size": cell(m, "bytes_key"),
					"value_size": cell(m, "bytes_value"), "max_entries": cell(m, "max_entries"),
				}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			return cell(row, "id"), some(row, "type", "name", "key_size", "value_size", "max_entries")
		},
	},
	{
		name: "bpftool link", command: "bpftool -j link", view: "bpf_links",
		told: func(t *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for _, l := range parseObjects(t, out) {
				rows[cell(l, "id")] = cells{"type": cell(l, "type"), "prog_id": cell(l, "prog_id")}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			return cell(row, "id"), some(row, "type", "prog_id")
		},
	},
	{
		name: "ip link", command: "ip -j -d addr", view: "interfaces",
		told: func(t *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for _, l := range parseObjects(t, out) {
				var addresses []string
				infos, _ := l["addr_info"].([]any)
				for _, a := range infos {
					a, _ := a.(map[string]any)
					addresses = append(addresses, cell(a, "local")+"/"+cell(a, "prefixlen"))
				}
				c := cells{
					"index": cell(l, "ifindex"), "mtu": cell(l, "mtu"), "mac": cell(l, "address"), "master": cell(l, "master"),
					"qdisc": cell(l, "qdisc"), "promiscuity": cell(l, "promiscuity"),
					"addresses": sorted(strings.Join(addresses, ",")),
				}
				if l["allmulti"] != nil { // told from Linux 6.0 on
					c["allmulti"] = cell(l, "allmulti")
				}
				rows[cell(l, "ifname")] = c
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			if cell(row, "net_ns") != firstNetNS {
				return "", nil
			}
			c := some(row, "index", "mtu", "mac", "master", "qdisc", "promiscuity", "allmulti", "addresses")
			c["addresses"] = sorted(c["addresses"])
			return cell(row, "name"), c
		},
	},
	{
		name: "ip neigh", command: "ip -j neigh show nud all", view: "neighbours",
		told: func(t *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for _, n := range parseObjects(t, out) {
				rows[cell(n, "dst")+" "+cell(n, "dev")] = cells{"mac": cell(n, "lladdr"), "state": cell(n, "state")}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			if cell(row, "net_ns") != firstNetNS || row["state"] == nil { // without a state it is a proxy, which ip shows apart
				return "", nil
			}
			return cell(row, "address") + " " + cell(row, "interface"), some(row, "mac", "state")
		},
	},
	{
		name: "ss", command: "ss -H -n -a -t -u -e", view: "sockets",
		told: func(_ *testing.T, out string) map[string]cells {
			rows := map[string]cells{}
			for line := range strings.Lines(out) {
				f := strings.Fields(line)
				if len(f) > 1 && f[0] == "tcp" && f[1] == "UNCONN" {
					continue // closed, or never connected: which of those are told depends on the kernel
				}
				for _, word := range f[min(len(f), 6):] {
					if inode, ok := strings.CutPrefix(word, "ino:"); ok && inode != "0" {
						local := f[4]
						if rest, ok := strings.CutPrefix(local, "*"); ok {
							local = "[::]" + rest // which takes IPv4 too
						}
						rows[inode] = cells{"protocol": f[0], "send": f[3], "local": local}
						if f[1] != "LISTEN" { // there it is how many wait, not bytes
							rows[inode]["receive"] = f[2]
						}
					}
				}
			}
			return rows
		},
		row: func(row map[string]any) (string, cells) {
			protocol := strings.TrimRight(cell(row, "protocol"), "6")
			if protocol != "tcp" && protocol != "udp" || cell(row, "net_ns") != firstNetNS || cmp.Or(cell(row, "inode"), "0") == "0" || cmp.Or(cell(row, "local_port"), "0") == "0" {
				return "", nil // ss lists those that have a process and a port
			}
			if protocol == "tcp" && cell(row, "state") == "CLOSE" {
				return "", nil
			}
			c := cells{"protocol": protocol, "receive": cell(row, "recv_queue"), "send": cell(row, "send_queue")}
			c["local"] = ssAddress(row)
			return cell(row, "inode"), c
		},
	},
}

// firstNetNS is the network namespace that the kernel begins with, where the tools run:
// on all of Debian's kernels, set by compareTools.
var firstNetNS string

// ssAddress is a socket's own address in the words of ss.
func ssAddress(row map[string]any) string {
	host, port := cell(row, "local"), cmp.Or(cell(row, "local_port"), "0")
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if name := cell(row, "interface"); name != "" {
		host += "%" + name
	}
	return host + ":" + port
}

// short is what the kernel keeps of a program's name; bpftool has the rest from its types.
func short(name string) string { return name[:min(len(name), 15)] }
