package groundtruth

func init() {
	register(viewCase{view: "libs", ignore: ofTeller})
	register(viewCase{view: "elfs", ignore: ofTeller})
}
