# CMake reads this file before it chooses a generator, and looks for it in the top folder only. Its own choice is make,
# even on a machine that has none but Ninja, which README asks for: there plain `cmake -S . -B build` takes Ninja. Any
# choice of the caller's (-G, CMAKE_GENERATOR, a preset) stands.
find_program(MLAR_MAKE NAMES make gmake)
find_program(MLAR_NINJA NAMES ninja ninja-build)
if(NOT CMAKE_GENERATOR AND NOT MLAR_MAKE AND MLAR_NINJA)
    set(CMAKE_GENERATOR Ninja CACHE INTERNAL "")
endif()
unset(MLAR_MAKE CACHE)
unset(MLAR_NINJA CACHE)
