import ArgumentParser
struct T: ParsableCommand { @Option var x = 1; func run() { print(x) } }
T.main()
