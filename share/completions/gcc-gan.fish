# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_gcc_gan_global_optspecs
    string join \n q/quiet h/help V/version
end

function __fish_gcc_gan_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_gcc_gan_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_gcc_gan_using_subcommand
    set -l cmd (__fish_gcc_gan_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -s V -l version -d 'Print version'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "compile" -d 'Compile a program to a plan, and print a summary'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "verify" -d 'Check a plan file: that it is intact, and that what it says can be run safely'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "run" -d 'Run an entry, a network or a function of a program on given tensors'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "inputs" -d 'List every name that `gcc-gan run` takes and gives, with its shape and meaning'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "ops" -d 'List the words of the graph language: layers, operations, draws, optimisers, steps and inputs'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "graphs" -d 'List the built-in programs: their names, what they are, and the data that they take'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "inspect" -d 'Show everything the compiler does, in one HTML file'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "explain" -d 'Explain where a node came from and where it went, why two nodes are not in one kernel, or what kernels could be'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "diff" -d 'Show what differs between two programs, or a plan and a program'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "profile" -d 'Measure every kernel of a step, or compare two measurements'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "tune" -d 'Choose each kernel\'s algorithm by measurement on the GPU that is here'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "train" -d 'Train a program'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "sample" -d 'Make new images with a trained program'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "animate" -d 'Show how a run learned: its sample images over the training, as a GIF'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "report" -d 'Show what became of runs, side by side, in one HTML file'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "eval" -d 'Measure how good a program\'s samples are'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "export" -d 'Take a trained model to other programs'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "import" -d 'Make a run of weights that another program trained'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "data" -d 'Show, fetch and verify data sets'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "devices" -d 'List what plans can run on, and what is missing'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "completions" -d 'Print a script that completes commands, options and their values in a shell'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "man" -d 'Write the manual pages, one for each command'
complete -c gcc-gan -n "__fish_gcc_gan_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l set -d 'Another value for one of the program\'s sizes or values; may be given several times' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -s o -l output -d 'Where to write the plan, or what --emit asks for' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l emit -d 'Print the program itself' -r -f -a "text\t'One line a node; at the stage `kernels`, the body of each kernel'
ron\t'In RON'
json\t'In JSON'
dot\t'For Graphviz'
svg\t'A picture, drawn without Graphviz'
memory\t'The memory map: every buffer\'s place in the arena and when it is live'
cuda\t'CUDA C++ of every kernel, and how each is launched'
ptx\t'What NVRTC compiles each kernel to, for the architecture named'
sass\t'The instructions of that GPU, as nvdisasm or cuobjdump shows them'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l stage -d 'At which stage: declared, a pass by its name (differentiate among them), optimised (after the last), kernels' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l by -d 'What a box of --emit svg is: a layer where there are many nodes, else a node; at the stage kernels, a kernel' -r -f -a "layer\t''
node\t''"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l entry -d 'Only this entry of the program; of several, pictures show the training step' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l dump-passes -d 'Write the text of every entry after every pass into this folder' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l stop-after -d 'Stop after this pass; no plan is made' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l pass -d 'Also run an optional pass: drop-biases' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l math -d 'How convolutions are computed [default: accurate, or as a plan was compiled]' -r -f -a "exact\t'Every one as it is written'
accurate\t'Large ones on the CPU by Winograd\'s minimal filtering: results are within 1e-5 of the direct ones\' norm'
fast\t'The same with larger tiles: within 1e-4, closer than TF32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l specialise -d 'Also compile the entries that take data for batches of this size: an epoch\'s smaller last one' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l device -d 'What to compile for: cpu, cuda (this machine\'s GPU), cuda:sm_80 (any GPU of that kind or newer; but cuda:sm_90, or sm_90a, is for that kind alone, whose own instructions it uses), or cuda:sm_80,sm_90 (the kernels of the first, with code for each) [default: cpu; cuda:sm_80 with --emit cuda, ptx or sass]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l precision -d 'How accurate matrix products are; a CPU has f32 and bf16 [default: f32]' -r -f -a "f32\t'As accurate as arithmetic in f32'
tf32\t'Operands rounded to 10 bits of mantissa, sums in f32; on GPUs'
bf16\t'Operands rounded to bf16, sums in f32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l device-code -d 'Whether kernels for a GPU are compiled too, into the plan, so that a GPU\'s driver alone can run it: where NVRTC is found, always (without it is an error), or never' -r -f -a "auto\t'Where NVRTC is found'
always\t'Without NVRTC there is no plan'
never\t'The plan\'s kernels are compiled where it is run'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l verify -d 'Verify the graph after every pass'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l validate -d 'Check every pass against the reference interpreter in f64 on random inputs (slow for large graphs)'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l fast-math -d 'Allow rewrites that are wrong for NaN and infinities, such as x - x → 0'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l no-fusion -d 'Make every operation a kernel of its own'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l deny-warnings -d 'Refuse a program that has warnings, such as a size that nothing uses, or kernels for a GPU that use local memory'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -l json -d 'Print the figures as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand compile" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand verify" -l json -d 'Print JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand verify" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l inputs -d 'A safetensors file with what is given' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l checkpoint -d 'Take the state from a run\'s folder or a checkpoint file, but for what --inputs gives' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l outputs -d 'The safetensors file to write' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l steps -d 'How often to run it, each time on the state that the time before left' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l seed -d 'The seed of initialisation and draws' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l device -d 'What runs it: cpu, cuda (the first NVIDIA GPU), cuda:1 (another), or auto (a GPU where one works, else the CPU)' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l precision -d 'How accurate matrix products are; a CPU has f32 and bf16 [default: f32, or a run\'s own]' -r -f -a "f32\t'As accurate as arithmetic in f32'
tf32\t'Operands rounded to 10 bits of mantissa, sums in f32; on GPUs'
bf16\t'Operands rounded to bf16, sums in f32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l threads -d 'Threads of the CPU to use; results do not depend on it' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l isa -d 'Use no wider instructions of the CPU than these: portable, or on x86-64 avx2, avx512, avx512-bf16, of what it has; results differ by rounding' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l trust-device-code -d 'Run a plan\'s compiled GPU code though it was made on another machine: it can do all that a program can. With =PLAN, take the code from that file, for what is given as no plan (a run to resume, a checkpoint)' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l math -d 'How convolutions are computed [default: accurate, or as a plan was compiled]' -r -f -a "exact\t'Every one as it is written'
accurate\t'Large ones on the CPU by Winograd\'s minimal filtering: results are within 1e-5 of the direct ones\' norm'
fast\t'The same with larger tiles: within 1e-4, closer than TF32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l set -d 'Another value for one of the program\'s sizes or values; may be given several times' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l f64-reference -d 'Evaluate the declared graph by the reference interpreter in f64 (slow) instead of compiling it'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l json -d 'Print what was written as JSON: the file, and the tensors in it'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l fast-math -d 'Allow rewrites that are wrong for NaN and infinities, such as x - x → 0'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -l deny-warnings -d 'Refuse a program that has warnings, such as a size that nothing uses'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inputs" -l set -d 'Another value for one of the program\'s sizes or values; may be given several times' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inputs" -l example -d 'Write example inputs of ENTRY into this safetensors file: images in [-1, 1], labels in turn, else normal noise' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inputs" -l json -d 'Print JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inputs" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inputs" -s h -l help -d 'Print help'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand ops" -l json -d 'Print JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand ops" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand ops" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand graphs" -l json -d 'Print JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand graphs" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand graphs" -s h -l help -d 'Print help'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l set -d 'Another value for one of the program\'s sizes or values; may be given several times' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -s o -l output -d 'The HTML file to write; standard output where none is given' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l profile -d 'Measured times, as `gcc-gan profile` writes them' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l values -d 'The values of the next training step of a run, evaluated by the reference interpreter: pictures, histograms, and what is NaN or infinite. A run\'s folder, or a checkpoint file, of the same program' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l data -d 'The data that the step takes [default: the run\'s own]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l device -d 'What to compile for: cpu, cuda (this machine\'s GPU) or cuda:sm_80 (that kind) [default: cpu]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l precision -d 'How accurate matrix products are; a CPU has f32 and bf16 [default: f32]' -r -f -a "f32\t'As accurate as arithmetic in f32'
tf32\t'Operands rounded to 10 bits of mantissa, sums in f32; on GPUs'
bf16\t'Operands rounded to bf16, sums in f32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l pass -d 'Also run an optional pass: drop-biases' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l math -d 'How convolutions are computed [default: accurate, or as a plan was compiled]' -r -f -a "exact\t'Every one as it is written'
accurate\t'Large ones on the CPU by Winograd\'s minimal filtering: results are within 1e-5 of the direct ones\' norm'
fast\t'The same with larger tiles: within 1e-4, closer than TF32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l against -d 'Show what differs from this other program: a graph in RON, a plan, or a built-in program' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l against-set -d 'Another value for one of the other program\'s sizes or values' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l against-device -d 'What to compile the other program for [default: cpu]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l against-precision -d 'How accurate the other program\'s matrix products are [default: f32]' -r -f -a "f32\t'As accurate as arithmetic in f32'
tf32\t'Operands rounded to 10 bits of mantissa, sums in f32; on GPUs'
bf16\t'Operands rounded to bf16, sums in f32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l against-profile -d 'Measured times of the other program; without --against, older times of the same one' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l offline -d 'Never use the network'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l validate -d 'Check every pass against the reference interpreter in f64 on random inputs, and show how well it did (slow for large graphs)'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l fast-math -d 'Allow rewrites that are wrong for NaN and infinities, such as x - x → 0'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l no-fusion -d 'Make every operation a kernel of its own'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -l json -d 'The data behind the page instead, as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand explain" -l set -d 'Another value for one of the program\'s sizes or values; may be given several times' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand explain" -l entry -d 'Which entry; the training step where none is named' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand explain" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand diff" -l set-a -d 'Another value for one of the first program\'s sizes or values' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand diff" -l set-b -d 'Another value for one of the second program\'s sizes or values' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand diff" -l all -d 'List everything, however long'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand diff" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l set -d 'Another value for one of the program\'s sizes or values; may be given several times' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l entry -d 'Which entry; the training step where none is named' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l steps -d 'How many steps to measure, after one that is not' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -s o -l output -d 'The trace to write' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l by -d 'What the table has a row for' -r -f -a "kernel\t'Every kernel'
layer\t'Each layer, all its calls together, in columns for forward, backward and update'
call\t'Each call of each layer'
role\t'Forward, backward of each loss, update of each network'
kind\t'Matrix products, reductions and so on'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l seed -d 'The seed of initialisation and draws (times hardly depend on it)' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l against -d 'Measure nothing: compare PROGRAM, which is a trace that --output wrote, with this other one' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l device -d 'What runs it: cpu, cuda (the first NVIDIA GPU), cuda:1 (another), or auto (a GPU where one works, else the CPU)' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l precision -d 'How accurate matrix products are; a CPU has f32 and bf16 [default: f32, or a run\'s own]' -r -f -a "f32\t'As accurate as arithmetic in f32'
tf32\t'Operands rounded to 10 bits of mantissa, sums in f32; on GPUs'
bf16\t'Operands rounded to bf16, sums in f32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l threads -d 'Threads of the CPU to use; results do not depend on it' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l isa -d 'Use no wider instructions of the CPU than these: portable, or on x86-64 avx2, avx512, avx512-bf16, of what it has; results differ by rounding' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l trust-device-code -d 'Run a plan\'s compiled GPU code though it was made on another machine: it can do all that a program can. With =PLAN, take the code from that file, for what is given as no plan (a run to resume, a checkpoint)' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -l json -d 'Print the figures as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand profile" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l set -d 'Another value for one of the program\'s sizes or values; may be given several times' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -s o -l output -d 'The plan to write' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l entry -d 'Which entry; the training step where none is named' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l candidates -d 'How many algorithms to try for a kernel, the present one among them' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l steps -d 'Steps of one measurement' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l rounds -d 'Measurements of a candidate, of which the shortest counts' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l precision -d 'How accurate matrix products are; a CPU has f32 and bf16 [default: f32, or a run\'s own]' -r -f -a "f32\t'As accurate as arithmetic in f32'
tf32\t'Operands rounded to 10 bits of mantissa, sums in f32; on GPUs'
bf16\t'Operands rounded to bf16, sums in f32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l threads -d 'Threads of the CPU to use; results do not depend on it' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l isa -d 'Use no wider instructions of the CPU than these: portable, or on x86-64 avx2, avx512, avx512-bf16, of what it has; results differ by rounding' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l trust-device-code -d 'Run a plan\'s compiled GPU code though it was made on another machine: it can do all that a program can. With =PLAN, take the code from that file, for what is given as no plan (a run to resume, a checkpoint)' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l device-code -d 'Whether the kernels that were chosen are put into the plan compiled, so that a driver alone can run it: where NVRTC is found, always (without it is an error), or never' -r -f -a "auto\t'Where NVRTC is found'
always\t'Without NVRTC there is no plan'
never\t'The plan\'s kernels are compiled where it is run'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l device -d 'What runs it: cpu, cuda (the first NVIDIA GPU), cuda:1 (another), or auto (a GPU where one works, else the CPU)' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -l json -d 'Print the figures as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand tune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l data -d 'auto, mnist, fashion-mnist, embedded, a folder of PNG or JPEG files (sub-folders are classes), a folder with IDX files, NPY arrays or CIFAR-10\'s binary files, or one such file [default: auto]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l epochs -d 'Train until N epochs are complete [default: 10, without --steps; with --resume, as far as the run was to go]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l steps -d 'Train until N steps are complete' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l seed -d 'The seed of all randomness [default: 2, with which the DCGAN\'s first samples show strokes early; other commands have 0]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l device -d 'What runs it: cpu, cuda (the first NVIDIA GPU), cuda:1 (another), or auto (a GPU where one works, else the CPU)' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l precision -d 'How accurate matrix products are; a CPU has f32 and bf16 [default: f32, or a run\'s own]' -r -f -a "f32\t'As accurate as arithmetic in f32'
tf32\t'Operands rounded to 10 bits of mantissa, sums in f32; on GPUs'
bf16\t'Operands rounded to bf16, sums in f32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l threads -d 'Threads of the CPU to use; results do not depend on it' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l isa -d 'Use no wider instructions of the CPU than these: portable, or on x86-64 avx2, avx512, avx512-bf16, of what it has; results differ by rounding' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l trust-device-code -d 'Run a plan\'s compiled GPU code though it was made on another machine: it can do all that a program can. With =PLAN, take the code from that file, for what is given as no plan (a run to resume, a checkpoint)' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l math -d 'How convolutions are computed [default: accurate, or as a plan was compiled]' -r -f -a "exact\t'Every one as it is written'
accurate\t'Large ones on the CPU by Winograd\'s minimal filtering: results are within 1e-5 of the direct ones\' norm'
fast\t'The same with larger tiles: within 1e-4, closer than TF32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l set -d 'Another value for one of the program\'s sizes or values; may be given several times. With --resume, for one of its values, such as a learning rate' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l out -d 'The folder that holds the runs' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l name -d 'The run\'s name [default: the program\'s with a number]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l sample-every -d 'Steps between sample images, and between checkpoints within an epoch [default: 1000]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l log-every -d 'Steps between lines of metrics.jsonl and points in TensorBoard, and between printed lines [default: 50, and 1000 between printed lines]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l eval-every -d 'Measure the samples of the run\'s seed every N steps as `eval` does, by moving averages of the weights where the program keeps them; 0 is never. The figures are in the metrics, and the best checkpoint so far is kept as best.safetensors' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l eval-samples -d 'Samples to measure each time [default: 2,000, or as many as can be compared with the real images]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l keep -d 'Keep the last N checkpoints, in the run\'s folder checkpoints/ by their steps [default: 0]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l resume -d 'Resume a run: its folder, or the one under --out that was saved last. What it was told by --sample-every, --log-every, --eval-every, --eval-samples and --keep still holds, unless another value is given' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l deny-warnings -d 'Refuse a program that has warnings, such as a size that nothing uses (a plan is not read again)'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l strict -d 'Refuse data with a picture that cannot be read, which is skipped otherwise'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l fast-math -d 'Allow rewrites that are wrong for NaN and infinities, such as x - x → 0'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l json -d 'Print JSON in place of text, an object a line: the run\'s beginning, reports, what was measured and saved, and its end'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -l offline -d 'Never use the network'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand train" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l checkpoint -d 'The same, as `run` has it' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -s o -l output -d 'The file to write; its name ends in the format: .png, .jpg, .gif or .webp' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l grid -d 'Rows x columns of images' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l seed -d 'Another seed gives other images [training uses its own seed for its samples]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l label -d 'The classes of the rows, of a program that takes labels: 7, or 0-4, or 1,3,5-9 [each row of the grid has the next class]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l truncation -d 'From noise without numbers further from 0 than this: images that are more alike, and more like the common ones' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l interpolate -d 'From the noise of one seed to that of the next, on great circles: along the rows, or in a GIF one moment after the other' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l frames -d 'Pictures from one seed to the next, in a GIF [default: 24]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l fps -d 'Pictures a second, in a GIF [default: 12]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l scale -d 'Pixels on a side for each of the images\' pixels' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l data -d 'The data set to reconstruct from [default: the run\'s own]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l device -d 'What runs it: cpu, cuda (the first NVIDIA GPU), cuda:1 (another), or auto (a GPU where one works, else the CPU)' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l precision -d 'How accurate matrix products are; a CPU has f32 and bf16 [default: f32, or a run\'s own]' -r -f -a "f32\t'As accurate as arithmetic in f32'
tf32\t'Operands rounded to 10 bits of mantissa, sums in f32; on GPUs'
bf16\t'Operands rounded to bf16, sums in f32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l threads -d 'Threads of the CPU to use; results do not depend on it' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l isa -d 'Use no wider instructions of the CPU than these: portable, or on x86-64 avx2, avx512, avx512-bf16, of what it has; results differ by rounding' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l trust-device-code -d 'Run a plan\'s compiled GPU code though it was made on another machine: it can do all that a program can. With =PLAN, take the code from that file, for what is given as no plan (a run to resume, a checkpoint)' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l ema -d 'With the moving averages of the weights, of a program that keeps them by `Average`'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l sort -d 'Lay the images out by the digit that the built-in classifier (see `eval`) sees in each, the surest of a digit first'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l reconstruct -d 'Images of the data set with what the program\'s entry `reconstruct` makes of them, below each row'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l offline -d 'Never use the network'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -l json -d 'Print what was written as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand sample" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand animate" -s o -l output -d 'The GIF file to write' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand animate" -l fps -d 'Pictures a second' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand animate" -l hold -d 'Seconds that the last picture is shown' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand animate" -l scale -d 'Pixels on a side for each of the images\' pixels' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand animate" -l json -d 'Print what was written as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand animate" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand animate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand report" -s o -l output -d 'The file to write: a page (.html), the metrics alone (.csv), or what --json prints (.json) [default: report.html]' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand report" -l samples -d 'At most N sample images of each run on the page [default: 100, fewer where they are large]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand report" -l json -d 'The data behind the page as JSON, on standard output without -o, with all lines of the metrics and the names of all images'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand report" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l images -d 'Measure the images of a file in place of a run\'s samples: an IDX file, or an array that numpy.save wrote, of bytes or of float32 from -1 to 1' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l samples -d 'Samples to make, and real images to compare them with [default: 10,000, or as many as there are; with --images, all of the file\'s]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l seed -d 'Another seed gives other samples' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l data -d 'Compare with these images [default: those that the run was trained on; with --images, auto: see `train`]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -s o -l output -d 'A picture to write (.png, .jpg, .gif or .webp): samples, each with the training image that it is nearest to on its right' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l device -d 'What runs it: cpu, cuda (the first NVIDIA GPU), cuda:1 (another), or auto (a GPU where one works, else the CPU)' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l precision -d 'How accurate matrix products are; a CPU has f32 and bf16 [default: f32, or a run\'s own]' -r -f -a "f32\t'As accurate as arithmetic in f32'
tf32\t'Operands rounded to 10 bits of mantissa, sums in f32; on GPUs'
bf16\t'Operands rounded to bf16, sums in f32'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l threads -d 'Threads of the CPU to use; results do not depend on it' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l isa -d 'Use no wider instructions of the CPU than these: portable, or on x86-64 avx2, avx512, avx512-bf16, of what it has; results differ by rounding' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l trust-device-code -d 'Run a plan\'s compiled GPU code though it was made on another machine: it can do all that a program can. With =PLAN, take the code from that file, for what is given as no plan (a run to resume, a checkpoint)' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l ema -d 'With the moving averages of the weights, of a program that keeps them by `Average`'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l json -d 'Print as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -l offline -d 'Never use the network'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand eval" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand export" -l format -d 'What to write [default: what the name of --output ends in, and onnx without one]' -r -f -a "onnx\t'An ONNX model'
safetensors\t'Weights for PyTorch'"
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand export" -s o -l output -d 'The file to write [default: the program\'s name with the format\'s]' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand export" -l entry -d 'The entry that becomes a model [default: sample]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand export" -l network -d 'The network that becomes a model, in inference mode' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand export" -l opset -d 'The version of ONNX\'s operators, 20 to 28: an older one for older runtimes [default: 28]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand export" -l ema -d 'With the moving averages of the weights, of a program that keeps them by `Average`'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand export" -l json -d 'Print what was written as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand export" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand import" -l into -d 'A run whose program, sizes and data the new one has; it is not changed' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand import" -l program -d 'A graph in RON, a plan, or a built-in program: see `gcc-gan graphs`' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand import" -l network -d 'The network whose weights the file has, by names that do not begin with the network\'s' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand import" -l set -d 'Another value for one of the program\'s sizes or values; may be given several times' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand import" -l data -d 'What `train --resume` trains on [default: that of the other run, else auto]' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand import" -l seed -d 'The seed of what is not in the file, and of training' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand import" -s o -l output -d 'The folder of the new run' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand import" -l json -d 'Print what was read as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand import" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and not __fish_seen_subcommand_from show fetch verify help" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and not __fish_seen_subcommand_from show fetch verify help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and not __fish_seen_subcommand_from show fetch verify help" -f -a "show" -d 'Show what a --data argument leads to'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and not __fish_seen_subcommand_from show fetch verify help" -f -a "fetch" -d 'Download a set into the cache folder'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and not __fish_seen_subcommand_from show fetch verify help" -f -a "verify" -d 'Compare a set\'s files, in $GCC_GAN_DATA or else the cache folder, with what they should be'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and not __fish_seen_subcommand_from show fetch verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from show" -l data -d 'The same, as `train` has it' -r
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from show" -l program -d 'Show how the images are fitted to what this program takes' -r -F
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from show" -l strict -d 'Fail where a picture cannot be read'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from show" -l offline -d 'Never use the network'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from fetch" -l json -d 'Print the files that are there then as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from fetch" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from fetch" -s h -l help -d 'Print help'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from verify" -l json -d 'Print what was found as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from verify" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show what a --data argument leads to'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from help" -f -a "fetch" -d 'Download a set into the cache folder'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Compare a set\'s files, in $GCC_GAN_DATA or else the cache folder, with what they should be'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand data; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand devices" -l json -d 'Print the list as JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand devices" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand devices" -s h -l help -d 'Print help'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand completions" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand completions" -s h -l help -d 'Print help'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand man" -s q -l quiet -d 'Print nothing but errors, warnings and JSON'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand man" -s h -l help -d 'Print help'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "compile" -d 'Compile a program to a plan, and print a summary'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "verify" -d 'Check a plan file: that it is intact, and that what it says can be run safely'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "run" -d 'Run an entry, a network or a function of a program on given tensors'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "inputs" -d 'List every name that `gcc-gan run` takes and gives, with its shape and meaning'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "ops" -d 'List the words of the graph language: layers, operations, draws, optimisers, steps and inputs'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "graphs" -d 'List the built-in programs: their names, what they are, and the data that they take'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "inspect" -d 'Show everything the compiler does, in one HTML file'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "explain" -d 'Explain where a node came from and where it went, why two nodes are not in one kernel, or what kernels could be'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "diff" -d 'Show what differs between two programs, or a plan and a program'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "profile" -d 'Measure every kernel of a step, or compare two measurements'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "tune" -d 'Choose each kernel\'s algorithm by measurement on the GPU that is here'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "train" -d 'Train a program'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "sample" -d 'Make new images with a trained program'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "animate" -d 'Show how a run learned: its sample images over the training, as a GIF'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "report" -d 'Show what became of runs, side by side, in one HTML file'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "eval" -d 'Measure how good a program\'s samples are'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "export" -d 'Take a trained model to other programs'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "import" -d 'Make a run of weights that another program trained'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "data" -d 'Show, fetch and verify data sets'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "devices" -d 'List what plans can run on, and what is missing'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "completions" -d 'Print a script that completes commands, options and their values in a shell'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "man" -d 'Write the manual pages, one for each command'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and not __fish_seen_subcommand_from compile verify run inputs ops graphs inspect explain diff profile tune train sample animate report eval export import data devices completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and __fish_seen_subcommand_from data" -f -a "show" -d 'Show what a --data argument leads to'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and __fish_seen_subcommand_from data" -f -a "fetch" -d 'Download a set into the cache folder'
complete -c gcc-gan -n "__fish_gcc_gan_using_subcommand help; and __fish_seen_subcommand_from data" -f -a "verify" -d 'Compare a set\'s files, in $GCC_GAN_DATA or else the cache folder, with what they should be'
