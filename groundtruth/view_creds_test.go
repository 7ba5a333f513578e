package groundtruth

func init() {
	register(viewCase{view: "creds", args: []string{"--threads"}, ignore: ofTeller})
}
