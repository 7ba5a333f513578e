package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

func init() {
	for view, what := range map[string]string{"nft_rules": "rule", "nft_chains": "chain", "nft_sets": "set", "nft_objects": "object"} {
		views[view] = func(emit func(any) error) error {
			return eachNetNS(func(net uint64) error { return tellNFT(emit, net, what) })
		}
	}
}

// nftList is what nft itself lists, of the thread's network namespace.
func nftList(args ...string) (string, error) {
	for _, path := range []string{"/nft", "/usr/sbin/nft"} {
		if _, err := os.Stat(path); err == nil {
			out, err := exec.Command(path, append(args, "list", "ruleset")...).Output()
			return string(out), err
		}
	}
	return "", errors.New("no nft in this guest")
}

var (
	nftHead    = regexp.MustCompile(`^\t?(table|chain|set|map|counter|quota|limit|flowtable|ct \S+) (.*?) \{ # handle (\d+)$`)
	nftRule    = regexp.MustCompile(`^\t\t(.*) # handle (\d+)$`)
	nftHook    = regexp.MustCompile(`^\t\ttype (\S+) hook (\S+) (?:device "(\S+)" )?priority (\S+); policy (\S+);$`)
	nftLimit   = regexp.MustCompile(`limit rate (?:over )?\d+/\w+(?: burst \d+ packets)?`)
	nftNote    = regexp.MustCompile(` comment "(.*)"$`)
	nftTotal   = regexp.MustCompile(`^packets (\d+) bytes (\d+)$`)
	nftFlows   = regexp.MustCompile(`^hook (\S+) priority (-?\d+);?$`)
	nftCounted = regexp.MustCompile(`counter packets (\d+) bytes (\d+)`)
)

// tellNFT reads what nft prints, and reports one kind of thing in it.
func tellNFT(emit func(any) error, inode uint64, what string) error {
	// The text without what changes by itself; numbers of packets beside it.
	text, err := nftList("-s", "-a", "-y")
	if err != nil {
		return err
	}
	counted, err := nftList("-a", "-y")
	if err != nil {
		return err
	}
	counts := map[string][2]uint64{}
	table, object := "", ""
	for line := range strings.Lines(counted) {
		line = strings.TrimSuffix(line, "\n")
		if m := nftHead.FindStringSubmatch(line); m != nil && m[1] == "table" {
			table = m[2]
		}
		if m := nftRule.FindStringSubmatch(line); m != nil {
			if c := nftCounted.FindAllStringSubmatch(m[1], -1); c != nil {
				packets, _ := strconv.ParseUint(c[len(c)-1][1], 10, 64)
				bytes, _ := strconv.ParseUint(c[len(c)-1][2], 10, 64)
				counts[table+m[2]] = [2]uint64{packets, bytes}
			}
		}
		if m := nftHead.FindStringSubmatch(line); m != nil {
			object = table + " " + m[1] + " " + m[2]
		}
		if m := nftTotal.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			packets, _ := strconv.ParseUint(m[1], 10, 64)
			bytes, _ := strconv.ParseUint(m[2], 10, 64)
			counts[object] = [2]uint64{packets, bytes}
		}
	}
	row, family, name, handle := map[string]any(nil), "", "", ""
	position, elements := 0, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		place := func() map[string]any { return map[string]any{"net_ns": inode, "family": family, "table": name} }
		number := func(s string) uint64 { n, _ := strconv.ParseUint(s, 10, 64); return n }
		if m := nftHead.FindStringSubmatch(line); m != nil {
			if m[1] == "table" {
				family, name, _ = strings.Cut(m[2], " ")
				handle = m[3]
				continue
			}
			row, position, elements = place(), 0, ""
			row["handle"] = number(m[3])
			switch m[1] {
			case "chain":
				row["kind"], row["chain"], row["table_handle"] = "chain", m[2], number(handle)
				row["type"], row["hook"], row["priority"], row["policy"], row["devices"] = nil, nil, nil, nil, nil
			case "set", "map":
				row["kind"], row["set"], row["data"], row["elements"], row["more"] = "set", m[2], nil, nil, false
			default:
				row["kind"], row["what"], row["object"], row["value"], row["packets"], row["bytes"] = "object", m[1], m[2], nil, nil, nil
				row["hook"], row["priority"], row["devices"] = nil, nil, nil
				if c, ok := counts[family+" "+name+" "+m[1]+" "+m[2]]; ok && m[1] == "counter" {
					row["packets"], row["bytes"] = c[0], c[1]
				}
			}
			continue
		}
		switch {
		case row == nil:
		case line == "\t}":
			kind := row["kind"]
			delete(row, "kind")
			if kind == "chain" {
				row["rules"], row["running"] = position, position
			}
			if elements != "" {
				row["elements"] = nftElements(elements)
			}
			if object, ok := row["what"]; ok {
				row["kind"] = object
				delete(row, "what")
			}
			if kind == what {
				if err := emit(row); err != nil {
					return err
				}
			}
			row = nil
		case row["kind"] == "set":
			line = strings.TrimSpace(line)
			if types, ok := strings.CutPrefix(line, "type "); ok {
				key, data, isMap := strings.Cut(types, " : ")
				if row["type"] = key; isMap {
					row["data"] = data
				}
			} else if elements != "" || strings.HasPrefix(line, "elements = ") {
				elements += " " + line
			}
		case row["kind"] == "object":
			line = strings.TrimSpace(line)
			if m := nftFlows.FindStringSubmatch(line); m != nil {
				priority, _ := strconv.ParseInt(m[2], 10, 64)
				row["hook"], row["priority"] = m[1], priority
			} else if devices, ok := strings.CutPrefix(line, "devices = "); ok {
				row["devices"] = nftElements("elements = " + strings.ReplaceAll(devices, `"`, ""))
			} else if row["what"] == "quota" || row["what"] == "limit" {
				row["value"] = line
			}
		case row["kind"] == "chain":
			if m := nftHook.FindStringSubmatch(line); m != nil {
				priority, _ := strconv.ParseInt(m[4], 10, 64)
				row["type"], row["hook"], row["priority"], row["policy"] = m[1], m[2], priority, m[5]
				if m[3] != "" {
					row["devices"] = []string{m[3]}
				}
				continue
			}
			m := nftRule.FindStringSubmatch(line)
			if m == nil {
				return fmt.Errorf("nft says %q", line)
			}
			r := place()
			r["chain"], r["handle"], r["position"], r["listed"], r["running"] = row["chain"], number(m[2]), position, true, true
			r["comment"], r["packets"], r["bytes"], r["running_rule"], r["unknown"] = nil, nil, nil, nil, nil
			if note := nftNote.FindStringSubmatch(m[1]); note != nil {
				r["comment"] = note[1]
			}
			// Newer ones say what older ones take for granted.
			// Older ones leave the usual burst out.
			r["rule"] = nftLimit.ReplaceAllStringFunc(nftNote.ReplaceAllString(m[1], ""), func(limit string) string {
				if strings.HasSuffix(limit, " packets") {
					return limit
				}
				return limit + " burst 5 packets"
			})
			if c, ok := counts[family+" "+name+m[2]]; ok {
				r["packets"], r["bytes"] = c[0], c[1]
			}
			position++
			if what == "rule" {
				if err := emit(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// nftElements takes "elements = { a, b }" apart.
func nftElements(s string) []string {
	s = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(s), "elements = { "), " }")
	var all []string
	for e := range strings.SplitSeq(s, ",") {
		all = append(all, strings.TrimSpace(e))
	}
	return all
}
