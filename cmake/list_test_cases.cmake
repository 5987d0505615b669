# Run after a test program is linked: writes to OUTPUT one add_test per
# TEST_CASE of EXECUTABLE, named "PREFIX: case". Catch2 v2's own discovery
# cannot turn tags into labels, and v3's has another interface.

cmake_minimum_required(VERSION 3.22)

# Sets `out` to the names of the test cases that `spec` selects.
function(list_cases out)
    if(CATCH_MAJOR EQUAL 3)
        set(list_names --list-tests --verbosity quiet)
    else()
        set(list_names --list-test-names-only)
    endif()
    execute_process(
        COMMAND "${EXECUTABLE}" ${ARGN} ${list_names}
        OUTPUT_VARIABLE names ERROR_VARIABLE errors RESULT_VARIABLE result)
    # v2 returns the number of cases, v3 zero; a crash is text or above 128.
    if(NOT result MATCHES "^[0-9]+$" OR errors MATCHES "Sanitizer")
        message(FATAL_ERROR
            "${EXECUTABLE} cannot list its tests: ${result}\n${errors}")
    endif()
    # CMake's lists and Catch2's test specifications give these a meaning.
    if(names MATCHES "[][;\"\\]")
        message(FATAL_ERROR "${EXECUTABLE}: a test name contains one of "
            "[ ] ; \" \\, which its registration cannot carry:\n${names}")
    endif()
    string(STRIP "${names}" names)
    string(REPLACE "\n" ";" names "${names}")
    set(${out} "${names}" PARENT_SCOPE)
endfunction()

list_cases(all)
if(NOT all)
    message(FATAL_ERROR "${EXECUTABLE} has no test case")
endif()
set(labels slow sanitize per_engine)
foreach(label IN LISTS labels)
    list_cases(with_${label} "[${label}]")
endforeach()

set(script "")
# add_case(<case> [engine]): appends the CTest commands for one case.
macro(add_case case engine)
    string(REPLACE "," "\\," spec "${case}")
    set(test "${PREFIX}: ${case}")
    if(NOT "${engine}" STREQUAL "")
        string(APPEND test " (${engine})")
    endif()
    string(APPEND script
        "add_test([==[${test}]==] [==[${EXECUTABLE}]==] [==[${spec}]==])\n")
    set(case_labels "")
    foreach(label IN LISTS labels)
        if("${case}" IN_LIST with_${label})
            list(APPEND case_labels ${label})
        endif()
    endforeach()
    string(APPEND script "set_tests_properties([==[${test}]==] PROPERTIES"
        " TIMEOUT 600 LABELS \"${case_labels}\""
        " SKIP_REGULAR_EXPRESSION \"SKIPPED: \"")
    if(NOT "${engine}" STREQUAL "")
        string(APPEND script " ENVIRONMENT FAISS_FLASH_ENGINE=${engine}")
    endif()
    string(APPEND script ")\n")
endmacro()

foreach(case IN LISTS all)
    if("${case}" IN_LIST with_per_engine)
        foreach(engine reference cpu)
            add_case("${case}" ${engine})
        endforeach()
    else()
        add_case("${case}" "")
    endif()
endforeach()
file(WRITE "${OUTPUT}" "${script}")
