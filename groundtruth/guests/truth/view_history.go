package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tellHistory reports what the shells that server started wrote down themselves, by their
// command history.
func tellHistory(emit func(any) error) error {
	files, err := filepath.Glob("/srv/outsight/history.*")
	if err != nil {
		return err
	}
	for _, file := range files {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Ext(file), "."))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			return err
		}
		shell, _, _ := strings.Cut(filepath.Base(program), "-") // bash-static
		if err := lines(file, func(line string) error {
			number, command, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
			index, err := strconv.Atoi(number)
			if err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			row := map[string]any{"pid": pid, "shell": shell, "index": index, "time": nil}
			if shell == "bash" || shell == "zsh" {
				stamp, rest, _ := strings.Cut(strings.TrimLeft(command, " "), " ") // HISTTIMEFORMAT is "%s ", and for zsh there is -t %s
				seconds, err := strconv.ParseInt(stamp, 10, 64)
				if err != nil {
					return fmt.Errorf("%q: %w", line, err)
				}
				if shell == "zsh" { // two spaces, and a line's end in words
					rest = strings.ReplaceAll(strings.TrimPrefix(rest, " "), `\n`, "\n")
				}
				command, row["time"] = rest, time.Unix(seconds, 0).UTC().Format(time.RFC3339)
			}
			row["command"] = command
			return emit(row)
		}); err != nil {
			return err
		}
	}
	return nil
}

func init() { views["history"] = tellHistory }
