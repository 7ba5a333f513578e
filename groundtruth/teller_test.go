package groundtruth

import (
	"encoding/json"
	"slices"
)

// ofTeller says of a row that it is of the program that reports, or of the shell that
// runs it: they are not there when outsight looks.
func ofTeller(row map[string]any) bool {
	comm, _ := row["comm"].(string)
	return slices.Contains([]string{"truth", "sh", "lab-agent"}, comm) && !settled(row)
}

// settled says of a row that its process was there before the tests began.
func settled(row map[string]any) bool {
	n, ok := row["pid"].(json.Number)
	if !ok {
		return false
	}
	pid, err := n.Int64()
	return err == nil && pid < 100
}
