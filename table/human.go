package table

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/table/text"
)

// appendHuman writes v for a person: sizes and durations with units, missing
// values by their reason, guest text in the Visible form.
func appendHuman(dst []byte, v Value) []byte {
	switch v.kind {
	case Null:
		return append(dst, missingMark(v.Reason())...)
	case Bool:
		if v.Bool() {
			return append(dst, "yes"...)
		}
		return append(dst, "no"...)
	case Float:
		return strconv.AppendFloat(dst, v.Float(), 'g', 6, 64)
	case Addr:
		return appendAddr(dst, v.num)
	case Size:
		return appendSize(dst, v.num)
	case Duration:
		return appendDuration(dst, v.Duration())
	case Time:
		return appendTime(dst, v, time.UTC)
	case Text:
		if v.text == "" {
			return append(dst, `""`...)
		}
		return text.AppendVisible(dst, v.text)
	case Bytes:
		return hex.AppendEncode(dst, []byte(v.text))
	case List, Numbers:
		for i, s := range v.list {
			if i > 0 {
				dst = append(dst, ' ')
			}
			dst = appendWord(dst, s)
		}
		return dst
	}
	return AppendJSON(dst, v)
}

func missingMark(why Reason) string {
	switch why {
	case Unreadable:
		return "?"
	case SwappedOut:
		return "(swapped)"
	}
	return "-"
}

func appendTime(dst []byte, v Value, zone *time.Location) []byte {
	return v.Time().In(zone).AppendFormat(dst, time.DateTime)
}

// appendSize writes n bytes with one of the units K, M, G … of 1024, to two or
// three digits.
func appendSize(dst []byte, n uint64) []byte {
	if n < 1024 {
		return strconv.AppendUint(dst, n, 10)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1023.5 { // would round to 1024
		f /= 1024
		unit++
	}
	digits := 0
	if f < 9.95 {
		digits = 1
	}
	dst = strconv.AppendFloat(dst, f, 'f', digits, 64)
	return append(dst, "KMGTPE"[unit])
}

// appendDuration writes the two most significant units of d.
func appendDuration(dst []byte, d time.Duration) []byte {
	if d < 0 {
		dst = append(dst, '-')
		d = max(-d, 0) // the most negative one has no positive twin
	}
	const day = 24 * time.Hour
	two := func(big, small time.Duration, units string) []byte {
		dst = strconv.AppendInt(dst, int64(d/big), 10)
		dst = append(dst, units[0])
		n := int64(d % big / small)
		if n < 10 {
			dst = append(dst, '0')
		}
		dst = strconv.AppendInt(dst, n, 10)
		return append(dst, units[1])
	}
	switch {
	case d < time.Minute:
		dst = strconv.AppendFloat(dst, d.Truncate(10*time.Millisecond).Seconds(), 'f', 2, 64)
		return append(dst, 's')
	case d < time.Hour:
		return two(time.Minute, time.Second, "ms")
	case d < day:
		return two(time.Hour, time.Minute, "hm")
	}
	return two(day, time.Hour, "dh")
}

// appendWord writes one element of a list so that a person sees where it ends:
// quoted as for a shell when it is empty or has spaces or quotes in it.
func appendWord(dst []byte, s string) []byte {
	if s != "" && !strings.ContainsAny(s, " '\"") {
		return text.AppendVisible(dst, s)
	}
	dst = append(dst, '\'')
	dst = append(dst, strings.ReplaceAll(text.Visible(s), "'", `'\''`)...)
	return append(dst, '\'')
}
